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
  float fresh1, fresh2;  // 1 - beta, not rounded on the way
  float keep;            // what weight decay leaves of the table
  float step_size;       // learning rate over the first moment's bias
  float inverse_root2;   // 1 / sqrt(the second moment's bias)
  uint64_t noise;        // of this step: ops/stochastic_rounding.h
  int64_t first_row;     // the number that the first row has there
};

// There is at least one row (of the gradient, with touched_only) and one column.
void launch_row_adamw(const RowAdamW& a, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
