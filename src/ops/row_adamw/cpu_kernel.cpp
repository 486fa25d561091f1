// One sweep over a table and its two moments. Bound: 12 bytes read and 12 written for each element.
//
// Plain loops: the compiler makes vectors of them, and without contraction an element's rounding is the same in a vector and in the
// rest. Between touched rows the sweep does not see rows at all.
#include "ops/row_adamw/cpu_kernel.h"

namespace blt::ops::BLT_ISA {
namespace {

struct Moved {
  float* __restrict table;
  float* __restrict exp_avg;
  float* __restrict exp_avg_sq;
};

inline void move(const RowAdamW& a, const Moved& to, int64_t i, float exp_avg, float exp_avg_sq) {
  to.exp_avg[i] = exp_avg;
  to.exp_avg_sq[i] = exp_avg_sq;
  const float root = __builtin_sqrtf(exp_avg_sq) * a.inverse_root2 + a.eps;
  to.table[i] = to.table[i] * a.keep - a.step_size * (exp_avg / root);
}

// The gradient is zero.
void sweep(const RowAdamW& args, int64_t first, int64_t last) {
  const RowAdamW a = args;  // nothing that is written can be part of it
  const Moved to{a.table, a.exp_avg, a.exp_avg_sq};
  for (int64_t i = first; i < last; ++i) move(a, to, i, to.exp_avg[i] * a.beta1, to.exp_avg_sq[i] * a.beta2);
}

void touched_row(const RowAdamW& args, int64_t row, const float* __restrict values) {
  const RowAdamW a = args;
  const int64_t at = row * a.columns;
  const Moved to{a.table + at, a.exp_avg + at, a.exp_avg_sq + at};
  for (int64_t i = 0; i < a.columns; ++i) {
    const float grad = values[i] * a.scale;
    move(a, to, i, to.exp_avg[i] * a.beta1 + grad * a.fresh1,
         to.exp_avg_sq[i] * a.beta2 + grad * grad * a.fresh2);
  }
}

}  // namespace

void row_adamw(const RowAdamW& a, int64_t first_row, int64_t last_row) {
  int64_t next = 0;  // the first touched row that is not below first_row
  for (int64_t above = a.count; next < above;) {
    const int64_t middle = next + (above - next) / 2;
    if (a.ids[middle] < first_row)
      next = middle + 1;
    else
      above = middle;
  }
  int64_t row = first_row;
  for (; next < a.count && a.ids[next] < last_row; ++next) {
    const int64_t touched = a.ids[next];
    if (!a.touched_only) sweep(a, row * a.columns, touched * a.columns);
    touched_row(a, touched, a.values + next * a.columns);
    row = touched + 1;
  }
  if (!a.touched_only) sweep(a, row * a.columns, last_row * a.columns);
}

}  // namespace blt::ops::BLT_ISA
