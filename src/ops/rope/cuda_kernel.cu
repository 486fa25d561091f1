// rope on CUDA: a thread has N elements, whole pairs, of one head. Bound by memory: with s bytes an element, 2 T H E s bytes; cosines and
// sines, read again for each head, come from the cache.
#include "ops/cuda/kernel.h"
#include "ops/rope/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kThreads = 256;

template <class T, int N>
__global__ void __launch_bounds__(kThreads) rope_kernel(Rope a) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= a.rows * a.heads * a.width) return;
  const int64_t angle = a.positions[at / (a.heads * a.width)] * (a.width / 2) + at % a.width / 2;
  Floats<N> x = load_floats<N>(static_cast<const T*>(a.x) + at);
  const Floats<N / 2> cos = load_floats<N / 2>(a.cos + angle), sin = load_floats<N / 2>(a.sin + angle);
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
    const float even = x.values[2 * i], odd = x.values[2 * i + 1];
    const float c = cos.values[i], s = a.inverse ? -sin.values[i] : sin.values[i];
    x.values[2 * i] = even * c - odd * s;
    x.values[2 * i + 1] = even * s + odd * c;
  }
  store_floats(static_cast<T*>(a.out) + at, x);
}

}  // namespace

void launch_rope(Storage storage, const Rope& a, Stream stream) {
  with_packs(storage, a.width, [&](auto zero, auto n) {
    constexpr int N = decltype(n)::value == 1 ? 2 : decltype(n)::value;
    const int64_t threads = a.rows * a.heads * a.width / N;
    launch(rope_kernel<decltype(zero), N>, dim3(static_cast<unsigned>(ceil_div(threads, kThreads))), kThreads,
           0, stream, a);
  });
}

}  // namespace blt::ops::BLT_DEVICE
