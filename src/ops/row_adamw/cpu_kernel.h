// What the CPU kernel of row_adamw_ is called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

struct RowAdamW {
  float* table;  // [rows, columns]
  float* exp_avg;
  float* exp_avg_sq;
  int64_t columns;
  const int32_t* ids;   // [count], increasing
  const float* values;  // [count, columns]
  int64_t count;
  bool touched_only;  // leave the other rows alone
  float scale;        // of the values
  float beta1, beta2, eps;
  float fresh1, fresh2;  // 1 - beta, not rounded on the way
  float keep;            // what weight decay leaves of the table
  float step_size;       // learning rate over the first moment's bias
  float inverse_root2;   // 1 / sqrt(the second moment's bias)
};

BLT_DECLARE_KERNEL(void row_adamw(const RowAdamW& a, int64_t first_row, int64_t last_row))

}  // namespace blt::ops
