// The end of a row that does not fill a vector. For kernel files alone; see simd.h.
#pragma once

#include "ops/cpu/simd.h"

namespace blt::ops::BLT_ISA {

// The next vector of a row with `left` elements to go; lanes past its end hold `rest`.
template <class T>
inline Vec<T> load_some(const T* from, int64_t left, T rest = 0) {
  return left >= kLanes<T> ? load(from) : load(from, left, rest);
}

template <class T>
inline void store_some(T* to, const Vec<T>& value, int64_t left) {
  if (left >= kLanes<T>)
    store(to, value);
  else
    store(to, value, left);
}

}  // namespace blt::ops::BLT_ISA
