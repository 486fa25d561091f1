// What the CPU kernel of dropout_add is called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

template <class T>
struct DropoutAdd {
  const T* x;
  const T* residual;  // nullptr: none
  T* out;
  T scale;  // of what stays
  int64_t seed;
  uint32_t threshold;  // elements whose random number is below it are left out
};

// Elements from `first` to `last`.
BLT_DECLARE_KERNEL(template <class T> void dropout_add(const DropoutAdd<T>& a, int64_t first, int64_t last))

}  // namespace blt::ops
