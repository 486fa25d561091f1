// What the CUDA kernels of segment_pool are launched with.
#pragma once

#include "ops/cuda/storage.h"

namespace blt::ops::BLT_DEVICE {

enum class PoolRule { kMax, kMin, kMean };

struct SegmentPool {
  const void* x;           // [N, columns]
  const int32_t* offsets;  // [segments + 1]
  void* out;               // [segments, columns]
  int32_t* winners;        // likewise; not for a mean
  int64_t segments, columns;
};

struct SegmentPoolBackward {
  const void* grad;        // [segments, columns]
  const int32_t* offsets;  // [segments + 1]
  const int32_t* winners;  // [segments, columns]; not for a mean
  void* grad_x;            // [rows, columns]
  int64_t segments, columns, rows;
};

// There is at least one segment and one column.
void launch_segment_pool(Storage storage, PoolRule rule, const SegmentPool& a, Stream stream);
void launch_segment_pool_backward(Storage storage, PoolRule rule, const SegmentPoolBackward& b,
                                  Stream stream);

}  // namespace blt::ops::BLT_DEVICE
