// softmax(scores) times values, while scores and values pass by.
#pragma once

#include "ops/cuda/head_rows.h"

namespace blt::ops::BLT_DEVICE {

// What a thread has of one query's sum: N of its columns, and what stands in front of all of them. Scores are in powers of 2 (times kLog2E).
template <int N>
struct RunningSoftmax {
  static constexpr int kFloats = N + 2;

  Floats<N> total;
  float highest, weight;  // the highest score, and the sum of 2^(score - highest)

  __device__ void begin() {
    total = zeros<N>();
    highest = -INFINITY;
    weight = 0;
  }

  // Turns scores into weights, in their place, for add(). -INFINITY is none, but not all are that.
  template <int kCount>
  __device__ void weigh(float (&scores)[kCount]) {
    float now = highest;
#pragma unroll
    for (int p = 0; p < kCount; ++p) now = fmaxf(now, scores[p]);
    const float shrink = exp2f(highest - now);  // 0 at first
    highest = now;
    weight *= shrink;
#pragma unroll
    for (int i = 0; i < N; ++i) total.values[i] *= shrink;
#pragma unroll
    for (int p = 0; p < kCount; ++p) {
      scores[p] = exp2f(scores[p] - now);
      weight += scores[p];
    }
  }
  __device__ void add(float factor, const Floats<N>& value) { add_scaled(factor, value, &total); }

  // Adds what another has of the same query and other keys, if it had any.
  __device__ void add(const RunningSoftmax& other) {
    if (other.weight == 0) return;
    const float both = fmaxf(highest, other.highest);
    const float own_share = exp2f(highest - both), other_share = exp2f(other.highest - both);
    highest = both;
    weight = weight * own_share + other.weight * other_share;
#pragma unroll
    for (int i = 0; i < N; ++i)
      total.values[i] = total.values[i] * own_share + other.total.values[i] * other_share;
  }

  // Its numbers 0 to kFloats - 1, handed to to(i, number) and taken from from(i).
  template <class Put>
  __device__ void put(const Put& to) const {
#pragma unroll
    for (int i = 0; i < N; ++i) to(i, total.values[i]);
    to(N, highest);
    to(N + 1, weight);
  }
  template <class From>
  __device__ static RunningSoftmax got(const From& from) {
    RunningSoftmax result;
#pragma unroll
    for (int i = 0; i < N; ++i) result.total.values[i] = from(i);
    result.highest = from(N);
    result.weight = from(N + 1);
    return result;
  }

  // Of a query that had keys.
  __device__ Floats<N> result() const {
    const float share = 1 / weight;
    Floats<N> scaled = total;
#pragma unroll
    for (int i = 0; i < N; ++i) scaled.values[i] *= share;
    return scaled;
  }
  __device__ float log_sum() const { return (highest + log2f(weight)) / kLog2E; }
};

// Goes on with some keys, whose scores become weights, and their values.
template <int kQueries, int kKeys, class T, int N>
__device__ void take_in(RunningSoftmax<N> (&sums)[kQueries], float (&scores)[kQueries][kKeys],
                        const Pack<T, N> (&values)[kKeys]) {
#pragma unroll
  for (int r = 0; r < kQueries; ++r) sums[r].weigh(scores[r]);
#pragma unroll
  for (int p = 0; p < kKeys; ++p) {
    const Floats<N> value = widen(values[p]);
#pragma unroll
    for (int r = 0; r < kQueries; ++r) sums[r].add(scores[r][p], value);
  }
}

}  // namespace blt::ops::BLT_DEVICE
