// One sweep over a table and its two moments. Bound: 12 bytes read and 12 written for each element (float).
//
// Plain loops: the compiler makes vectors of them, and without contraction an element's rounding is the same in a vector and in the
// rest. Between touched rows the sweep does not see rows at all.
#include "ops/row_adamw/cpu_kernel.h"

namespace blt::ops::BLT_ISA {
namespace {

inline float root(float x) { return __builtin_sqrtf(x); }
inline double root(double x) { return __builtin_sqrt(x); }

template <class T>
struct Moved {
  T* __restrict table;
  T* __restrict exp_avg;
  T* __restrict exp_avg_sq;
};

template <class T>
inline void move(const RowAdamW<T>& a, const Moved<T>& to, int64_t i, T exp_avg, T exp_avg_sq) {
  to.exp_avg[i] = exp_avg;
  to.exp_avg_sq[i] = exp_avg_sq;
  const T divisor = root(exp_avg_sq) * a.inverse_root2 + a.eps;
  to.table[i] = to.table[i] * a.keep - a.step_size * (exp_avg / divisor);
}

// The gradient is zero.
template <class T>
void sweep(const RowAdamW<T>& args, int64_t first, int64_t last) {
  const RowAdamW<T> a = args;  // nothing that is written can be part of it
  const Moved<T> to{a.table, a.exp_avg, a.exp_avg_sq};
  for (int64_t i = first; i < last; ++i) move(a, to, i, to.exp_avg[i] * a.beta1, to.exp_avg_sq[i] * a.beta2);
}

template <class T>
void touched_row(const RowAdamW<T>& args, int64_t row, const T* __restrict values) {
  const RowAdamW<T> a = args;
  const int64_t at = row * a.columns;
  const Moved<T> to{a.table + at, a.exp_avg + at, a.exp_avg_sq + at};
  for (int64_t i = 0; i < a.columns; ++i) {
    const T grad = values[i] * a.scale;
    move(a, to, i, to.exp_avg[i] * a.beta1 + grad * a.fresh1,
         to.exp_avg_sq[i] * a.beta2 + grad * grad * a.fresh2);
  }
}

}  // namespace

template <class T>
void row_adamw(const RowAdamW<T>& a, int64_t first_row, int64_t last_row) {
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

template void row_adamw(const RowAdamW<float>&, int64_t, int64_t);
template void row_adamw(const RowAdamW<double>&, int64_t, int64_t);

}  // namespace blt::ops::BLT_ISA
