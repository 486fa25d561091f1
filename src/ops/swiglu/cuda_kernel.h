// What the CUDA kernels of swiglu are launched with.
#pragma once

#include "ops/cuda/storage.h"

namespace blt::ops::BLT_DEVICE {

struct Swiglu {
  const void* gate;  // [count]
  const void* up;
  void* out;
  int64_t count;
};

struct SwigluBackward {
  const void* grad;  // [count]
  const void* gate;
  const void* up;
  void* grad_gate;
  void* grad_up;
  int64_t count;
};

// There is at least one element.
void launch_swiglu(Storage storage, const Swiglu& a, Stream stream);
void launch_swiglu_backward(Storage storage, const SwigluBackward& b, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
