// What the CPU kernels of segment_pool are called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

constexpr int64_t kPoolColumns = 128;  // a unit's columns

// Unit number segment * parts + part, parts = ceil(columns / kPoolColumns), is a block of columns of a segment; units do not share any
// output.
template <class T>
struct SegmentPool {
  const T* x;  // [N, columns]
  const int32_t* offsets;
  T* out;            // [P, columns]
  int32_t* winners;  // [P, columns], the row that won; for max and min
  int64_t columns;
};

template <class T>
struct SegmentPoolBackward {
  const T* grad;  // [P, columns]
  const int32_t* offsets;
  const int32_t* winners;
  T* grad_x;  // [N, columns]
  int64_t columns;
};

BLT_DECLARE_KERNEL(template <class T>
                   void segment_max(const SegmentPool<T>& a, int64_t first_unit, int64_t last_unit))
BLT_DECLARE_KERNEL(template <class T>
                   void segment_min(const SegmentPool<T>& a, int64_t first_unit, int64_t last_unit))
BLT_DECLARE_KERNEL(template <class T>
                   void segment_mean(const SegmentPool<T>& a, int64_t first_unit, int64_t last_unit))
BLT_DECLARE_KERNEL(template <class T> void segment_winner_backward(const SegmentPoolBackward<T>& b,
                                                                   int64_t first_unit, int64_t last_unit))
BLT_DECLARE_KERNEL(template <class T> void segment_mean_backward(const SegmentPoolBackward<T>& b,
                                                                 int64_t first_unit, int64_t last_unit))

}  // namespace blt::ops
