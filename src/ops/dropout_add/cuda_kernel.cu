// dropout_add on CUDA: a thread has a pack of elements, whose indices have the same high 32 bits. Bound by memory: with s bytes an element, reads s
// (2 s with a residual) and writes s for each.
#include "ops/cuda/kernel.h"
#include "ops/dropout_add/cuda_kernel.h"
#include "ops/dropout_add/random.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kThreads = 256;

template <class T, int N>
__global__ void __launch_bounds__(kThreads) dropout_add_kernel(DropoutAdd a) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= a.count) return;
  const DropoutKeys keys = dropout_keys(a.seed, static_cast<uint64_t>(at) >> 32);
  Floats<N> y = load_floats<N>(static_cast<const T*>(a.x) + at);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const bool stays =
        dropout_random(static_cast<uint32_t>(at) + static_cast<uint32_t>(i), keys) >= a.threshold;
    y.values[i] = stays ? y.values[i] * a.scale : 0.f;
  }
  if (a.residual != nullptr) {
    const Floats<N> residual = load_floats<N>(static_cast<const T*>(a.residual) + at);
#pragma unroll
    for (int i = 0; i < N; ++i) y.values[i] += residual.values[i];
  }
  store_floats(static_cast<T*>(a.out) + at, y);
}

}  // namespace

void launch_dropout_add(Storage storage, const DropoutAdd& a, Stream stream) {
  with_packs(storage, a.count, [&](auto zero, auto n) {
    constexpr int N = decltype(n)::value;
    const dim3 blocks(static_cast<unsigned>(ceil_div(a.count, N * kThreads)));
    launch(dropout_add_kernel<decltype(zero), N>, blocks, kThreads, 0, stream, a);
  });
}

}  // namespace blt::ops::BLT_DEVICE
