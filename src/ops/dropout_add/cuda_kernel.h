// What the CUDA kernel of dropout_add is launched with.
#pragma once

#include "ops/cuda/storage.h"

namespace blt::ops::BLT_DEVICE {

struct DropoutAdd {
  const void* x;         // [count]
  const void* residual;  // [count], or nullptr
  void* out;
  int64_t count;
  float scale;  // of what stays
  int64_t seed;
  uint32_t threshold;  // elements whose random number is below it are left out
};

// There is at least one element.
void launch_dropout_add(Storage storage, const DropoutAdd& a, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
