// What the CUDA kernel of row_adamw_ is launched with.
#pragma once

#include "ops/cuda/storage.h"

namespace blt::ops::BLT_DEVICE {

struct RowAdamW {
  float* table;      // [rows, columns]
  Storage moments;   // kFloat or kBfloat16
  void* exp_avg;     // [rows, columns] of that
  void* exp_avg_sq;  // likewise, or null
  float* row_sq;     // [rows], where exp_avg_sq is null
  int64_t rows, columns;
  const int32_t* ids;    // [capacity]; the first *count increase
  const float* values;   // [capacity, columns]
  const int32_t* count;  // on the device, as is
  const float* scale;    // of the values; nothing changes where it is not finite
  int64_t capacity;
  bool touched_only;  // leave the other rows alone
  float beta1, beta2, eps;
  float fresh1, fresh2;        // 1 - beta, not rounded on the way
  float keep;                  // what weight decay leaves of the table
  const float* step_size;      // on the device: learning rate over the first moment's bias
  const float* inverse_root2;  // on the device: 1 / sqrt(the second moment's bias)
  const double* step;          // on the device: from 1
  uint64_t seed;               // of the noise of steps: ops/stochastic_rounding.h
  int64_t first_row;           // the number that the first row has there
  void* rounded;               // [rows, columns] bfloat16, or null: rows of the table that have moved
};

// There is at least one row (of the gradient, with touched_only) and one column.
void launch_row_adamw(const RowAdamW& a, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
