// swiglu on CUDA: a thread has a pack of elements. Bound by memory: with s bytes an element, the forward reads 2 s and writes s for each, the
// backward reads 3 s and writes 2 s.
#include "ops/cuda/kernel.h"
#include "ops/swiglu/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kThreads = 256;

__device__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }

template <class T, int N>
__global__ void __launch_bounds__(kThreads) swiglu_kernel(Swiglu a) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= a.count) return;
  Floats<N> gate = load_floats<N>(static_cast<const T*>(a.gate) + at);
  const Floats<N> up = load_floats<N>(static_cast<const T*>(a.up) + at);
#pragma unroll
  for (int i = 0; i < N; ++i) gate.values[i] = gate.values[i] * sigmoid(gate.values[i]) * up.values[i];
  store_floats(static_cast<T*>(a.out) + at, gate);
}

// silu'(x) = s (1 + x (1 - s)), s = sigmoid(x).
template <class T, int N>
__global__ void __launch_bounds__(kThreads) swiglu_backward_kernel(SwigluBackward b) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= b.count) return;
  const Floats<N> grad = load_floats<N>(static_cast<const T*>(b.grad) + at),
                  gate = load_floats<N>(static_cast<const T*>(b.gate) + at),
                  up = load_floats<N>(static_cast<const T*>(b.up) + at);
  Floats<N> grad_gate, grad_up;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float x = gate.values[i], s = sigmoid(x);
    grad_up.values[i] = grad.values[i] * (x * s);
    grad_gate.values[i] = grad.values[i] * up.values[i] * (s * (1 + x * (1 - s)));
  }
  store_floats(static_cast<T*>(b.grad_gate) + at, grad_gate);
  store_floats(static_cast<T*>(b.grad_up) + at, grad_up);
}

template <int N>
dim3 blocks(int64_t count) {
  return dim3(static_cast<unsigned>(ceil_div(count, N * kThreads)));
}

}  // namespace

void launch_swiglu(Storage storage, const Swiglu& a, Stream stream) {
  with_packs(storage, a.count, [&](auto zero, auto n) {
    constexpr int N = decltype(n)::value;
    launch(swiglu_kernel<decltype(zero), N>, blocks<N>(a.count), kThreads, 0, stream, a);
  });
}

void launch_swiglu_backward(Storage storage, const SwigluBackward& b, Stream stream) {
  with_packs(storage, b.count, [&](auto zero, auto n) {
    constexpr int N = decltype(n)::value;
    launch(swiglu_backward_kernel<decltype(zero), N>, blocks<N>(b.count), kThreads, 0, stream, b);
  });
}

}  // namespace blt::ops::BLT_DEVICE
