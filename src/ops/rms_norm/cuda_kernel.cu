// rms_norm on CUDA. Bound by memory: with s bytes an element, the forward reads and writes N C s (with something added it reads and writes 2 N C s),
// the backward reads 2 N C s (3 N C s with a stream's gradient) and writes N C s (and 4 C / kChunk a row for the gradient of the weight).
#include "ops/cuda/kernel.h"
#include "ops/rms_norm/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kRowWarps = 4;      // of a block of the forward
constexpr int kThreads = 256;     // of a block of the backward
constexpr int kChunk = 64;        // rows that share a sum
constexpr int kMostPacks = 4;     // of a row that a thread of the backward holds, ...
constexpr int kMostSingles = 16;  // ... where rows are not made of packs

// A warp has a row: one pass for the sum, one for the result, the second from the cache.
template <class T, int N>
__global__ void __launch_bounds__(kRowWarps* kWarp) norm_kernel(RmsNorm a) {
  const LaneGroup<kWarp> lanes;
  const int64_t row = int64_t{blockIdx.x} * kRowWarps + threadIdx.x / kWarp;
  if (row >= a.rows) return;
  const T* x = static_cast<const T*>(a.x) + row * a.columns;
  float squares = 0;
  if (a.added != nullptr) {
    const T* added = static_cast<const T*>(a.added) + row * a.columns;
    T* sum = static_cast<T*>(a.sum) + row * a.columns;
#pragma unroll 4
    for (int64_t c = lanes.lane * N; c < a.columns; c += kWarp * N) {
      Floats<N> value = load_floats<N>(x + c);
      const Floats<N> more = load_floats<N>(added + c);
#pragma unroll
      for (int i = 0; i < N; ++i) value.values[i] += more.values[i];
      store_floats(sum + c, value);
    }
    x = sum;  // a lane reads again what it wrote
  }
#pragma unroll 4
  for (int64_t c = lanes.lane * N; c < a.columns; c += kWarp * N) {
    const Floats<N> value = load_floats<N>(x + c);
#pragma unroll
    for (int i = 0; i < N; ++i) squares += value.values[i] * value.values[i];
  }
  const float inverse = 1 / sqrtf(lanes.sum(squares) / static_cast<float>(a.columns) + a.eps);
  if (lanes.lane == 0) a.inverse[row] = inverse;
#pragma unroll 4
  for (int64_t c = lanes.lane * N; c < a.columns; c += kWarp * N) {
    Floats<N> value = load_floats<N>(x + c);
    const Floats<N> weight = load_floats<N>(static_cast<const T*>(a.weight) + c);
#pragma unroll
    for (int i = 0; i < N; ++i) value.values[i] = weight.values[i] * (value.values[i] * inverse);
    store_floats(static_cast<T*>(a.out) + row * a.columns + c, value);
  }
}

// The sum over a block, the same bits in every thread. shared [2][kThreads / kWarp], its halves taken in turns: one barrier is enough.
__device__ float block_sum(float value, float* shared, int turn) {
  constexpr int kWarps = kThreads / kWarp;
  const LaneGroup<kWarp> lanes;
  value = lanes.sum(value);
  float* own = shared + turn % 2 * kWarps;
  if (lanes.lane == 0) own[threadIdx.x / kWarp] = value;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) total += own[w];
  return total;
}

// With n = x inverse and g = grad weight: grad_x = inverse (g - n mean(g n)). A block has kChunk rows, one after the other; a thread keeps its
// columns' share of the gradient of the weight in registers, until the chunk is through.
template <class T, int N, int kPacks>
__global__ void __launch_bounds__(kThreads) norm_backward_kernel(RmsNormBackward b) {
  float* shared = shared_memory<float>();
  const int64_t first = int64_t{blockIdx.x} * kChunk, last = smaller(first + kChunk, b.rows);
  Floats<N> sums[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) sums[p] = zeros<N>();
  for (int64_t row = first; row < last; ++row) {
    const int64_t at = row * b.columns;
    const float inverse = b.inverse[row];
    Pack<T, N> x[kPacks], grad[kPacks];
    float dot = 0;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int64_t c = (int64_t{p} * kThreads + threadIdx.x) * N;
      x[p] = grad[p] = zero_pack<T, N>();
      if (c >= b.columns) continue;
      x[p] = load_pack<N>(static_cast<const T*>(b.x) + at + c);
      grad[p] = load_pack<N>(static_cast<const T*>(b.grad) + at + c);
      const Floats<N> value = widen(x[p]), g = widen(grad[p]),
                      weight = load_floats<N>(static_cast<const T*>(b.weight) + c);
#pragma unroll
      for (int i = 0; i < N; ++i) dot += g.values[i] * weight.values[i] * value.values[i];
    }
    dot = block_sum(dot, shared, static_cast<int>(row - first));
    const float shift = inverse * inverse * (dot / static_cast<float>(b.columns));
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int64_t c = (int64_t{p} * kThreads + threadIdx.x) * N;
      if (c >= b.columns) continue;
      const Floats<N> value = widen(x[p]), g = widen(grad[p]),
                      weight = load_floats<N>(static_cast<const T*>(b.weight) + c);
      Floats<N> out;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        out.values[i] = inverse * (g.values[i] * weight.values[i] - value.values[i] * shift);
        sums[p].values[i] += g.values[i] * (value.values[i] * inverse);
      }
      if (b.stream != nullptr) {
        const Floats<N> more = load_floats<N>(static_cast<const T*>(b.stream) + at + c);
#pragma unroll
        for (int i = 0; i < N; ++i) out.values[i] += more.values[i];
      }
      store_floats(static_cast<T*>(b.grad_x) + at + c, out);
    }
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int64_t c = (int64_t{p} * kThreads + threadIdx.x) * N;
    if (c < b.columns) store_floats(b.chunk_sums + int64_t{blockIdx.x} * b.columns + c, sums[p]);
  }
}

// A block has 32 columns; its warps share the chunks, and the first puts their sums together in order.
template <class T>
__global__ void __launch_bounds__(kThreads) norm_weight_kernel(RmsNormBackward b, int64_t chunks) {
  constexpr int kWarps = kThreads / kWarp;
  float* shared = shared_memory<float>();  // [kWarps][kWarp]
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t column = int64_t{blockIdx.x} * kWarp + lane;
  float total = 0;
#pragma unroll 4
  for (int64_t chunk = warp; chunk < chunks; chunk += kWarps)
    if (column < b.columns) total += b.chunk_sums[chunk * b.columns + column];
  shared[warp * kWarp + lane] = total;
  __syncthreads();
  if (warp > 0 || column >= b.columns) return;
  for (int other = 1; other < kWarps; ++other) total += shared[other * kWarp + lane];
  static_cast<T*>(b.grad_weight)[column] = static_cast<T>(total);
}

}  // namespace

int64_t norm_chunks(int64_t rows) { return ceil_div(rows, kChunk); }

int64_t most_norm_columns(Storage storage, int64_t columns) {
  int64_t most = 0;
  with_packs(storage, columns, [&](auto, auto n) {
    constexpr int N = decltype(n)::value;
    most = int64_t{kThreads} * (N == 1 ? kMostSingles : N * kMostPacks);
  });
  return most;
}

void launch_rms_norm(Storage storage, const RmsNorm& a, Stream stream) {
  with_packs(storage, a.columns, [&](auto zero, auto n) {
    launch(norm_kernel<decltype(zero), decltype(n)::value>,
           dim3(static_cast<unsigned>(ceil_div(a.rows, kRowWarps))), kRowWarps * kWarp, 0, stream, a);
  });
}

void launch_rms_norm_backward(Storage storage, const RmsNormBackward& b, Stream stream) {
  const int64_t chunks = norm_chunks(b.rows);
  with_packs(storage, b.columns, [&](auto zero, auto n) {
    using T = decltype(zero);
    constexpr int N = decltype(n)::value;
    constexpr int kMost = N == 1 ? kMostSingles : kMostPacks;
    const auto kernel =
        b.columns <= N * kThreads ? norm_backward_kernel<T, N, 1> : norm_backward_kernel<T, N, kMost>;
    constexpr int kWarps = kThreads / kWarp;
    launch(kernel, dim3(static_cast<unsigned>(chunks)), kThreads, 2 * kWarps * sizeof(float), stream, b);
    launch(norm_weight_kernel<T>, dim3(static_cast<unsigned>(ceil_div(b.columns, kWarp))), kThreads,
           kThreads * sizeof(float), stream, b, chunks);
  });
}

}  // namespace blt::ops::BLT_DEVICE
