// cross_entropy on CUDA: a warp has a row, which it reads from memory once, and again from the cache. Bound by memory: with s bytes an element,
// the forward reads V s and writes 20 bytes a row, the backward reads and writes V s.
#include "ops/cross_entropy/cuda_kernel.h"
#include "ops/cuda/kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kWarps = 4;

template <class T, int N>
__global__ void __launch_bounds__(kWarps* kWarp) cross_entropy_kernel(RowCrossEntropy a) {
  const LaneGroup<kWarp> lanes;
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (row >= a.rows) return;
  const T* x = static_cast<const T*>(a.logits) + row * a.columns;
  float largest = -INFINITY;
  int32_t winner = INT32_MAX;  // the first column with the largest logit
#pragma unroll 4
  for (int64_t c = lanes.lane * N; c < a.columns; c += kWarp * N) {
    const Floats<N> value = load_floats<N>(x + c);
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (value.values[i] > largest || winner == INT32_MAX) {
        largest = value.values[i];
        winner = static_cast<int32_t>(c + i);
      }
  }
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(lanes.mask, largest, distance);
    const int32_t other_winner = __shfl_xor_sync(lanes.mask, winner, distance);
    if (other > largest || (other == largest && other_winner < winner)) {
      largest = other;
      winner = other_winner;
    }
  }
  // With d = logit - largest: sum of e^d, and sum of e^d d. A logit of -inf has probability 0, and adds 0.
  float total = 0, dot = 0;
#pragma unroll 4
  for (int64_t c = lanes.lane * N; c < a.columns; c += kWarp * N) {
    const Floats<N> value = load_floats<N>(x + c);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float d = value.values[i] - largest, e = expf(d);
      total += e;
      dot += e * fmaxf(d, -1e30f);
    }
  }
  total = lanes.sum(total);
  dot = lanes.sum(dot);
  if (lanes.lane > 0) return;
  const float log_total = logf(total);
  const int32_t target = a.targets[row];
  a.nll[row] = target < 0 ? 0 : log_total - (static_cast<float>(x[target]) - largest);
  a.entropy[row] = log_total - dot / total;
  a.argmax[row] = winner;
  a.softmax[2 * row] = largest;
  a.softmax[2 * row + 1] = 1 / total;
}

template <class T, int N>
__global__ void __launch_bounds__(kWarps* kWarp) cross_entropy_backward_kernel(RowCrossEntropyBackward b) {
  const LaneGroup<kWarp> lanes;
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (row >= b.rows) return;
  const int64_t at = row * b.columns;
  const int32_t target = b.targets[row];
  const float grad = b.grad[row], largest = b.softmax[2 * row], share = b.softmax[2 * row + 1];
#pragma unroll 4
  for (int64_t c = lanes.lane * N; c < b.columns; c += kWarp * N) {
    Floats<N> value = load_floats<N>(static_cast<const T*>(b.logits) + at + c);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float one = c + i == target ? grad : 0;
      value.values[i] = target < 0 ? 0 : expf(value.values[i] - largest) * share * grad - one;
    }
    store_floats(static_cast<T*>(b.grad_logits) + at + c, value);
  }
}

// run(T(), N): 260 logits are packs of 4, in 16 bits of 8 bytes.
template <class Run>
void with_logits(Storage storage, int64_t columns, const Run& run) {
  with_storage(storage, [&](auto zero) {
    if (columns % 4 == 0)
      run(zero, std::integral_constant<int, 4>());
    else
      run(zero, std::integral_constant<int, 1>());
  });
}

}  // namespace

void launch_cross_entropy(Storage storage, const RowCrossEntropy& a, Stream stream) {
  with_logits(storage, a.columns, [&](auto zero, auto n) {
    launch(cross_entropy_kernel<decltype(zero), decltype(n)::value>,
           dim3(static_cast<unsigned>(ceil_div(a.rows, kWarps))), kWarps * kWarp, 0, stream, a);
  });
}

void launch_cross_entropy_backward(Storage storage, const RowCrossEntropyBackward& b, Stream stream) {
  with_logits(storage, b.columns, [&](auto zero, auto n) {
    launch(cross_entropy_backward_kernel<decltype(zero), decltype(n)::value>,
           dim3(static_cast<unsigned>(ceil_div(b.rows, kWarps))), kWarps * kWarp, 0, stream, b);
  });
}

}  // namespace blt::ops::BLT_DEVICE
