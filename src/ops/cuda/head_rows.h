// Rows of a head (queries, keys, values), held by a few lanes of a warp: 16 bytes each.
#pragma once

#include "ops/cuda/kernel.h"

namespace blt::ops::BLT_DEVICE {

constexpr float kLog2E = 1.44269504088896340736f;

// What a thread holds of a row: kPackOf<T> elements, or none where the row ends before.
template <class T, int kLanes>
struct Row {
  static constexpr int N = kPackOf<T>;
  using Lanes = LaneGroup<kLanes>;

  __device__ static Pack<T, N> load(const void* rows, int64_t row, int64_t width, bool valid) {
    const int64_t column = Lanes().lane * N;
    if (!valid || column >= width) return zero_pack<T, N>();
    return load_pack<N>(static_cast<const T*>(rows) + row * width + column);
  }

  __device__ static void store(void* rows, int64_t row, int64_t width, const Floats<N>& values) {
    const int64_t column = Lanes().lane * N;
    if (column < width) store_floats(static_cast<T*>(rows) + row * width + column, values);
  }
};

template <int N>
__device__ float dot(const Floats<N>& a, const Floats<N>& b) {
  float total = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) total += a.values[i] * b.values[i];
  return total;
}

template <int N>
__device__ void add_scaled(float factor, const Floats<N>& x, Floats<N>* to) {
#pragma unroll
  for (int i = 0; i < N; ++i) to->values[i] += factor * x.values[i];
}

// run(T(), std::integral_constant<int, lanes>()): rows of up to 32, 64 or 128 elements.
template <class Run>
void with_lanes(Storage storage, int64_t width, const Run& run) {
  with_storage(storage, [&](auto zero) {
    constexpr int N = kPackOf<decltype(zero)>;
    if (width <= 32)
      run(zero, std::integral_constant<int, 32 / N>());
    else if (width <= 64)
      run(zero, std::integral_constant<int, 64 / N>());
    else
      run(zero, std::integral_constant<int, 128 / N>());
  });
}

}  // namespace blt::ops::BLT_DEVICE
