// What the CPU kernels of swiglu are called with: rows do not matter, elements from `first` to `last` do.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

template <class T>
struct Swiglu {
  const T* gate;
  const T* up;
  T* out;
};

template <class T>
struct SwigluBackward {
  const T* grad;
  const T* gate;
  const T* up;
  T* grad_gate;
  T* grad_up;
};

BLT_DECLARE_KERNEL(template <class T> void swiglu(const Swiglu<T>& a, int64_t first, int64_t last))
BLT_DECLARE_KERNEL(template <class T>
                   void swiglu_backward(const SwigluBackward<T>& b, int64_t first, int64_t last))

}  // namespace blt::ops
