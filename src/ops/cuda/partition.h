// Who works on what: arithmetic on offsets that kernels and their tests on the host share.
#pragma once

#include <cstdint>

#include "ops/cuda/storage.h"

#ifdef __CUDACC__
#define BLT_HOST_DEVICE __host__ __device__
#else
#define BLT_HOST_DEVICE
#endif

namespace blt::ops::BLT_DEVICE {

BLT_HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
BLT_HOST_DEVICE constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// How many of `count` increasing values are below `limit`.
BLT_HOST_DEVICE inline int64_t count_below(const int32_t* values, int64_t count, int64_t limit) {
  int64_t low = 0;
  while (low < count) {
    const int64_t middle = low + (count - low) / 2;
    if (values[middle] < limit)
      low = middle + 1;
    else
      count = middle;
  }
  return low;
}

// The segment of `count` that has `row`: never an empty one; `count` itself where the row lies behind all. offsets [count + 1].
BLT_HOST_DEVICE inline int64_t segment_of(const int32_t* offsets, int64_t count, int64_t row) {
  return count_below(offsets, count + 1, row + 1) - 1;
}

}  // namespace blt::ops::BLT_DEVICE
