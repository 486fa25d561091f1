// A row of 260 logits is a kilobyte: it is read from memory once, and twice from the cache. Bound by the
// exponentials, one an element in either direction.
//
// The backward keeps the largest logit and the sum apart: exp(logit - logsumexp) would carry the rounding of
// the log-sum-exp, which is absolute, into every probability.
#include "ops/cross_entropy/cpu_kernel.h"

#include "ops/cpu/tail.h"

namespace blt::ops::BLT_ISA {
namespace {

float log(float x) { return __builtin_logf(x); }
double log(double x) { return __builtin_log(x); }

template <class T>
T min_lane(const Vec<T>& value) {
  return -max_lane(-value);
}

}  // namespace

template <class T>
void cross_entropy(const RowCrossEntropy<T>& a, int64_t first_row, int64_t last_row) {
  const T infinity = static_cast<T>(__builtin_inf());
  const int64_t columns = a.columns;
  for (int64_t row = first_row; row < last_row; ++row) {
    const T* x = a.logits + row * columns;
    Vec<T> highest = splat(-infinity);
    for (int64_t c = 0; c < columns; c += kLanes<T>)
      highest = max(load_some(x + c, columns - c, -infinity), highest);
    const T largest = max_lane(highest);

    // With d = logit - largest: sum of e^d, sum of e^d d, and the first column with d = 0.
    Vec<T> total = zeros<T>(), dot = zeros<T>();
    Vec<T> winner = splat(static_cast<T>(columns)), column = iota<T>();
    for (int64_t c = 0; c < columns; c += kLanes<T>) {
      const Vec<T> value = load_some(x + c, columns - c, -infinity);
      const Vec<T> d = value - splat(largest);
      const Vec<T> e = exp(d);
      total += e;
      dot += e * max(d, splat(static_cast<T>(-1e30)));  // a logit of -inf has probability 0, and adds 0
      winner = min(select_less(value, splat(largest), winner, column), winner);
      column += splat(static_cast<T>(kLanes<T>));
    }
    const T s = sum(total);
    const T log_s = log(s);
    const int32_t target = a.targets[row];
    a.nll[row] = target < 0 ? 0 : log_s - (x[target] - largest);
    a.entropy[row] = log_s - sum(dot) / s;
    a.argmax[row] = static_cast<int32_t>(min_lane(winner));
    a.softmax[2 * row] = largest;
    a.softmax[2 * row + 1] = 1 / s;
  }
}

template <class T>
void cross_entropy_backward(const RowCrossEntropyBackward<T>& b, int64_t first_row, int64_t last_row) {
  const int64_t columns = b.columns;
  for (int64_t row = first_row; row < last_row; ++row) {
    const T* x = b.logits + row * columns;
    T* out = b.grad_logits + row * columns;
    const int32_t target = b.targets[row];
    if (target < 0) {
      for (int64_t c = 0; c < columns; c += kLanes<T>) store_some(out + c, zeros<T>(), columns - c);
      continue;
    }
    const T grad = b.grad[row], largest = b.softmax[2 * row], share = b.softmax[2 * row + 1];
    for (int64_t c = 0; c < columns; c += kLanes<T>)
      store_some(out + c, exp(load_some(x + c, columns - c) - splat(largest)) * splat(share) * splat(grad),
                 columns - c);
    out[target] -= grad;
  }
}

template void cross_entropy(const RowCrossEntropy<float>&, int64_t, int64_t);
template void cross_entropy(const RowCrossEntropy<double>&, int64_t, int64_t);
template void cross_entropy_backward(const RowCrossEntropyBackward<float>&, int64_t, int64_t);
template void cross_entropy_backward(const RowCrossEntropyBackward<double>&, int64_t, int64_t);

}  // namespace blt::ops::BLT_ISA
