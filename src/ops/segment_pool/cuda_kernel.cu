// segment_pool on CUDA. Bound by memory: with s bytes an element, the forward reads N C s and writes P C (s + 4) bytes (s for a mean), the
// backward reads as many as the forward writes and writes N C s.
#include "ops/cuda/kernel.h"
#include "ops/segment_pool/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kWarps = 8;         // of a block: segments that it takes at once
constexpr int kLongSegment = 64;  // rows from which on all warps share one
constexpr int kTileRows = 16;     // of the backward's blocks

// Pools of N columns while their rows pass, in any order.
template <PoolRule kRule, int N>
struct Pool {
  float value[N];
  int32_t row[N];  // of the winner; -1: none yet

  __device__ Pool() {
#pragma unroll
    for (int i = 0; i < N; ++i) value[i] = 0, row[i] = -1;
  }

  __device__ void add(int i, float x, int32_t x_row) {
    if constexpr (kRule == PoolRule::kMean)
      value[i] += x;
    else
      offer(i, x, x_row);
  }

  __device__ void offer(int i, float x, int32_t x_row) {
    if (x_row < 0) return;
    const bool better = kRule == PoolRule::kMax ? x > value[i] : x < value[i];
    const bool both_nan = x != x && value[i] != value[i];
    const bool equal = x == value[i] || both_nan;
    // The first of equals wins, and a NaN wins over all that is none.
    if (row[i] < 0 || better || (x != x && !both_nan) || (equal && x_row < row[i])) {
      value[i] = x;
      row[i] = x_row;
    }
  }
};

template <PoolRule kRule, int N, class T>
__device__ void pool_rows(const T* x, int64_t columns, int64_t first, int64_t last, int64_t step,
                          Pool<kRule, N>* pool) {
#pragma unroll 4
  for (int64_t row = first; row < last; row += step) {
    const Floats<N> values = load_floats<N>(x + row * columns);
#pragma unroll
    for (int i = 0; i < N; ++i) pool->add(i, values.values[i], static_cast<int32_t>(row));
  }
}

template <PoolRule kRule, int N, class T>
__device__ void store_pool(const SegmentPool& a, int64_t segment, int64_t column, int64_t rows,
                           const Pool<kRule, N>& pool) {
  const int64_t at = segment * a.columns + column;
  Floats<N> values;
#pragma unroll
  for (int i = 0; i < N; ++i)
    values.values[i] = kRule == PoolRule::kMean ? pool.value[i] / static_cast<float>(rows) : pool.value[i];
  store_floats(static_cast<T*>(a.out) + at, values);
  if constexpr (kRule != PoolRule::kMean) {
#pragma unroll
    for (int i = 0; i < N; ++i) a.winners[at + i] = pool.row[i];
  }
}

// A block has kWarps neighbouring segments and 32 packs of N columns. First each warp pools one of them; then all warps share each one that is
// long, warp w the rows w, w + kWarps, ..., and the first warp puts their pools together. A segment's result depends on its rows alone.
template <PoolRule kRule, class T, int N>
__global__ void __launch_bounds__(kWarps* kWarp) pool_kernel(SegmentPool a) {
  float* values = shared_memory<float>();                                   // [kWarps][N][kWarp]
  int32_t* rows = reinterpret_cast<int32_t*>(values + kWarps * N * kWarp);  // likewise
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t column = (int64_t{blockIdx.y} * kWarp + lane) * N;
  const bool inside = column < a.columns;
  const T* x = static_cast<const T*>(a.x) + column;
  const int64_t first = int64_t{blockIdx.x} * kWarps, last = smaller(first + kWarps, a.segments);

  const int64_t own = first + warp;
  if (inside && own < last && a.offsets[own + 1] - a.offsets[own] < kLongSegment) {
    Pool<kRule, N> pool;
    pool_rows(x, a.columns, a.offsets[own], a.offsets[own + 1], 1, &pool);
    store_pool<kRule, N, T>(a, own, column, a.offsets[own + 1] - a.offsets[own], pool);
  }
  for (int64_t segment = first; segment < last; ++segment) {
    const int64_t begin = a.offsets[segment], end = a.offsets[segment + 1];
    if (end - begin < kLongSegment) continue;
    Pool<kRule, N> pool;
    if (inside) pool_rows(x, a.columns, begin + warp, end, kWarps, &pool);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      values[(warp * N + i) * kWarp + lane] = pool.value[i];
      rows[(warp * N + i) * kWarp + lane] = pool.row[i];
    }
    __syncthreads();
    if (warp == 0 && inside) {
      for (int other = 1; other < kWarps; ++other)
#pragma unroll
        for (int i = 0; i < N; ++i)
          pool.add(i, values[(other * N + i) * kWarp + lane], rows[(other * N + i) * kWarp + lane]);
      store_pool<kRule, N, T>(a, segment, column, end - begin, pool);
    }
    __syncthreads();
  }
}

// A block has kTileRows rows of grad_x, and a thread one pack of their columns: balanced, however long segments are. Each element has one writer.
template <PoolRule kRule, class T, int N>
__global__ void __launch_bounds__(128) pool_backward_kernel(SegmentPoolBackward b) {
  const int64_t column = (int64_t{blockIdx.y} * 128 + threadIdx.x) * N;
  if (column >= b.columns) return;
  const int64_t first = int64_t{blockIdx.x} * kTileRows, last = smaller(first + kTileRows, b.rows);
  int64_t segment = segment_of(b.offsets, b.segments, first);
  for (int64_t row = first; row < last; ++segment) {
    const int64_t begin = b.offsets[segment], end = b.offsets[segment + 1];
    const int64_t at = segment * b.columns + column;
    Floats<N> grad = load_floats<N>(static_cast<const T*>(b.grad) + at);
    [[maybe_unused]] int32_t winners[N];
    if constexpr (kRule == PoolRule::kMean) {
#pragma unroll
      for (int i = 0; i < N; ++i) grad.values[i] /= static_cast<float>(end - begin);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) winners[i] = b.winners[at + i];
    }
    for (; row < last && row < end; ++row) {
      Floats<N> out = grad;
      if constexpr (kRule != PoolRule::kMean) {
#pragma unroll
        for (int i = 0; i < N; ++i) out.values[i] = winners[i] == row ? grad.values[i] : 0;
      }
      store_floats(static_cast<T*>(b.grad_x) + row * b.columns + column, out);
    }
  }
}

template <class Run>
void with_rule(PoolRule rule, const Run& run) {
  if (rule == PoolRule::kMax)
    run(std::integral_constant<PoolRule, PoolRule::kMax>());
  else if (rule == PoolRule::kMin)
    run(std::integral_constant<PoolRule, PoolRule::kMin>());
  else
    run(std::integral_constant<PoolRule, PoolRule::kMean>());
}

}  // namespace

void launch_segment_pool(Storage storage, PoolRule rule, const SegmentPool& a, Stream stream) {
  with_rule(rule, [&](auto r) {
    with_packs(storage, a.columns, [&](auto zero, auto n) {
      constexpr int N = decltype(n)::value;
      const dim3 grid(static_cast<unsigned>(ceil_div(a.segments, kWarps)),
                      static_cast<unsigned>(ceil_div(a.columns, N * kWarp)));
      launch(pool_kernel<decltype(r)::value, decltype(zero), N>, grid, kWarps * kWarp, kWarps * kWarp * N * 8,
             stream, a);
    });
  });
}

void launch_segment_pool_backward(Storage storage, PoolRule rule, const SegmentPoolBackward& b,
                                  Stream stream) {
  // A winner is one, whichever rule made it.
  with_rule(rule == PoolRule::kMean ? rule : PoolRule::kMax, [&](auto r) {
    with_packs(storage, b.columns, [&](auto zero, auto n) {
      constexpr int N = decltype(n)::value;
      const dim3 grid(static_cast<unsigned>(ceil_div(b.rows, kTileRows)),
                      static_cast<unsigned>(ceil_div(b.columns, N * 128)));
      launch(pool_backward_kernel<decltype(r)::value, decltype(zero), N>, grid, 128, 0, stream, b);
    });
  });
}

}  // namespace blt::ops::BLT_DEVICE
