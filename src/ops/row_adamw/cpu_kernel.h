// What the CPU kernel of row_adamw_ is called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

// Number: float or double, what is computed in. Moment: what moments are kept in, the same or, of floats, the bits of bfloat16.
template <class Number, class Moment>
struct RowAdamW {
  using T = Number;
  using M = Moment;

  T* table;           // [rows, columns]
  M* exp_avg;         // [rows, columns]
  M* exp_avg_sq;      // [rows, columns], or null
  T* row_sq;          // [rows], where exp_avg_sq is null
  uint16_t* rounded;  // [rows, columns], or null: the bits of bfloat16
  int64_t columns;
  const int32_t* ids;  // [count], increasing
  const T* values;     // [count, columns]
  int64_t count;
  bool touched_only;  // leave the other rows alone
  T scale;            // of the values
  T beta1, beta2, eps;
  T fresh1, fresh2;   // 1 - beta, not rounded on the way
  T keep;             // what weight decay leaves of the table
  T step_size;        // learning rate over the first moment's bias
  T inverse_root2;    // 1 / sqrt(the second moment's bias)
  uint64_t noise;     // of this step: ops/stochastic_rounding.h
  int64_t first_row;  // the number that the first row has there
};

// Args: RowAdamW<float, float>, <double, double> or <float, uint16_t>.
BLT_DECLARE_KERNEL(template <class Args> void row_adamw(const Args& a, int64_t first_row, int64_t last_row))

}  // namespace blt::ops
