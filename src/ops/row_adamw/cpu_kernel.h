// What the CPU kernel of row_adamw_ is called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

// T: float or double.
template <class T>
struct RowAdamW {
  T* table;  // [rows, columns]
  T* exp_avg;
  T* exp_avg_sq;
  int64_t columns;
  const int32_t* ids;  // [count], increasing
  const T* values;     // [count, columns]
  int64_t count;
  bool touched_only;  // leave the other rows alone
  T scale;            // of the values
  T beta1, beta2, eps;
  T fresh1, fresh2;  // 1 - beta, not rounded on the way
  T keep;            // what weight decay leaves of the table
  T step_size;       // learning rate over the first moment's bias
  T inverse_root2;   // 1 / sqrt(the second moment's bias)
};

BLT_DECLARE_KERNEL(template <class T>
                   void row_adamw(const RowAdamW<T>& a, int64_t first_row, int64_t last_row))

}  // namespace blt::ops
