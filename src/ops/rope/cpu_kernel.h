// What the CPU kernel of rope is called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

template <class T>
struct Rope {
  const T* x;                // [T, heads, width]
  const int32_t* positions;  // [T], rows of the tables
  const T* cos;              // [M, width / 2]
  const T* sin;
  T* out;  // [T, heads, width]; may be x
  int64_t heads;
  int64_t width;
  bool inverse;  // turn the other way: the derivative
};

BLT_DECLARE_KERNEL(template <class T> void rope(const Rope<T>& a, int64_t first_row, int64_t last_row))

}  // namespace blt::ops
