// One sweep over a table and its two moments. Bound: 12 bytes read and 12 written for each element (float); 8 and 8 with moments in bfloat16 or
// with a second moment for each row, 6 and 6 with both; 2 more written where the table is rounded.
//
// Plain loops: the compiler makes vectors of them, and without contraction an element's rounding is the same in a vector and in the
// rest. Between touched rows the sweep sees rows only where they have numbers or noise of their own.
#include "ops/row_adamw/cpu_kernel.h"

#include <type_traits>

#include "ops/stochastic_rounding.h"

namespace blt::ops::BLT_ISA {
namespace {

inline float root(float x) { return __builtin_sqrtf(x); }
inline double root(double x) { return __builtin_sqrt(x); }

template <class T>
inline T load(T from) {
  return from;
}
inline float load(uint16_t from) { return widen_bfloat16(from); }

template <class T>
inline void store(T& to, T value, uint32_t) {
  to = value;
}
inline void store(uint16_t& to, float value, uint32_t noise) { to = round_to_bfloat16(value, noise); }

// The mean of a row's squared gradients. In 32 sums, as a warp has them: the same on CUDA and with any instruction set.
template <class T>
T mean_square(const T* __restrict values, T scale, int64_t columns) {
  constexpr int64_t kLanes = 32;
  T lanes[kLanes] = {};
  int64_t first = 0;
  for (; first + kLanes <= columns; first += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) {
      const T grad = values[first + l] * scale;
      lanes[l] += grad * grad;
    }
  for (int64_t l = 0; l < columns - first; ++l) {
    const T grad = values[first + l] * scale;
    lanes[l] += grad * grad;
  }
  for (int64_t distance = kLanes / 2; distance > 0; distance /= 2)
    for (int64_t l = 0; l < distance; ++l) lanes[l] += lanes[l + distance];
  return lanes[0] / static_cast<T>(columns);
}

// `count` elements from the beginning of a row on: the row, or, where rows have nothing of their own, several. kTouched: with the row's
// gradient; else it is zero.
template <bool kTouched, bool kByRow, class Args>
void move(const Args& args, int64_t row, int64_t count, const typename Args::T* __restrict values) {
  using T = typename Args::T;
  using M = typename Args::M;
  constexpr bool kRounds = !std::is_same<T, M>::value;
  const Args a = args;  // nothing that is written can be part of it
  const int64_t at = row * a.columns;
  T* __restrict table = a.table + at;
  M* __restrict exp_avg = a.exp_avg + at;
  M* __restrict exp_avg_sq = kByRow ? nullptr : a.exp_avg_sq + at;
  T row_step = 0;  // learning rate over the row's root of the second moment
  if constexpr (kByRow) {
    T second = a.row_sq[row] * a.beta2;
    if constexpr (kTouched) second += mean_square(values, a.scale, count) * a.fresh2;
    a.row_sq[row] = second;
    row_step = a.step_size / (root(second) * a.inverse_root2 + a.eps);
  }
  RowNoise of_row{};
  if constexpr (kRounds) of_row = row_noise(a.noise, a.first_row + row);
  for (int64_t i = 0; i < count; ++i) {
    uint32_t noise = 0;
    if constexpr (kRounds) noise = noise_at(of_row, static_cast<uint32_t>(i));
    T grad = 0, first = load(exp_avg[i]) * a.beta1;
    if constexpr (kTouched) {
      grad = values[i] * a.scale;
      first += grad * a.fresh1;
    }
    store(exp_avg[i], first, noise & 0xffff);
    if constexpr (kByRow) {
      table[i] = table[i] * a.keep - first * row_step;
    } else {
      T second = load(exp_avg_sq[i]) * a.beta2;
      if constexpr (kTouched) second += grad * grad * a.fresh2;
      store(exp_avg_sq[i], second, noise >> 16);
      table[i] = table[i] * a.keep - a.step_size * (first / (root(second) * a.inverse_root2 + a.eps));
    }
  }
}

// What has just moved, from a cache.
template <class Args>
void round_row(const Args& a, int64_t row) {
  const typename Args::T* __restrict table = a.table + row * a.columns;
  uint16_t* __restrict rounded = a.rounded + row * a.columns;
  for (int64_t i = 0; i < a.columns; ++i) rounded[i] = nearest_bfloat16(static_cast<float>(table[i]));
}

// Rows without a gradient.
template <bool kByRow, class Args>
void sweep(const Args& a, int64_t first, int64_t last) {
  constexpr bool kAtOnce = !kByRow && std::is_same<typename Args::T, typename Args::M>::value;
  if (kAtOnce && a.rounded == nullptr) {
    move<false, kByRow>(a, first, (last - first) * a.columns, nullptr);
    return;
  }
  for (int64_t row = first; row < last; ++row) {
    move<false, kByRow>(a, row, a.columns, nullptr);
    if (a.rounded != nullptr) round_row(a, row);
  }
}

template <bool kByRow, class Args>
void move_rows(const Args& a, int64_t first_row, int64_t last_row) {
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
    if (!a.touched_only) sweep<kByRow>(a, row, touched);
    move<true, kByRow>(a, touched, a.columns, a.values + next * a.columns);
    if (a.rounded != nullptr) round_row(a, touched);
    row = touched + 1;
  }
  if (!a.touched_only) sweep<kByRow>(a, row, last_row);
}

}  // namespace

template <class Args>
void row_adamw(const Args& a, int64_t first_row, int64_t last_row) {
  const auto run = a.exp_avg_sq == nullptr ? move_rows<true, Args> : move_rows<false, Args>;
  run(a, first_row, last_row);
}

template void row_adamw(const RowAdamW<float, float>&, int64_t, int64_t);
template void row_adamw(const RowAdamW<double, double>&, int64_t, int64_t);
template void row_adamw(const RowAdamW<float, uint16_t>&, int64_t, int64_t);

}  // namespace blt::ops::BLT_ISA
