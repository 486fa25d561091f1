// Gradients of table rows on CUDA: runs of equal keys, and the sum of each run's rows.
#include "ops/cuda/kernel.h"
#include "ops/ngram_embedding/cuda_rows_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kTile = 4 * kThreads;    // pairs of a block
constexpr int64_t kLongRun = 64;       // sources from which on a whole block adds up a run
constexpr int64_t kMostBlocks = 4096;  // that share the runs

__global__ void __launch_bounds__(kThreads)
    keys_kernel(const int32_t* ids, int64_t pairs, const int32_t* count, int64_t ids_per_source,
                int64_t first_source, int32_t none, int32_t* keys, int32_t* sources) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= pairs) return;
  const int32_t id = ids[i];
  const bool counts = id >= 0 && id < none && (count == nullptr || i < *count);
  keys[i] = counts ? id : none;
  sources[i] = static_cast<int32_t>(first_source + i / ids_per_source);
}

// Whether a run starts at pair i.
__device__ bool starts_run(const RowRuns& a, int64_t i) {
  return i < a.pairs && a.keys[i] < a.none && (i == 0 || a.keys[i - 1] != a.keys[i]);
}

// The sum of the values of all threads before this one, and in *total of all; every thread of the block calls it. shared [kWarps].
__device__ int32_t sum_before(int32_t value, int32_t* shared, int32_t* total) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  int32_t up_to = value;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int32_t below = __shfl_up_sync(0xffffffffu, up_to, distance);
    if (lane >= distance) up_to += below;
  }
  if (lane == kWarp - 1) shared[warp] = up_to;
  __syncthreads();
  int32_t before = up_to - value;
  *total = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) before += shared[w];
    *total += shared[w];
  }
  __syncthreads();
  return before;
}

// tile_counts[b] = the runs that start in tile b. Reads 8 bytes a pair.
__global__ void __launch_bounds__(kThreads) count_kernel(RowRuns a) {
  int32_t own = 0;
  for (int round = 0; round < kTile / kThreads; ++round)
    own += starts_run(a, int64_t{blockIdx.x} * kTile + round * kThreads + threadIdx.x);
  int32_t total;
  sum_before(own, shared_memory<int32_t>(), &total);
  if (threadIdx.x == 0) a.tile_counts[blockIdx.x] = total;
}

// tile_counts becomes the runs before each tile, *count the number of all. One block.
__global__ void __launch_bounds__(kThreads) scan_kernel(RowRuns a, int64_t num_tiles) {
  int32_t before_all = 0;
  for (int64_t first = 0; first < num_tiles; first += kThreads) {
    const int64_t tile = first + threadIdx.x;
    const int32_t own = tile < num_tiles ? a.tile_counts[tile] : 0;
    int32_t total;
    const int32_t before = sum_before(own, shared_memory<int32_t>(), &total);
    if (tile < num_tiles) a.tile_counts[tile] = before_all + before;
    before_all += total;
  }
  if (threadIdx.x == 0) *a.count = before_all;
}

// Writes the key and the start of each run, each by the thread of its first pair, and where the last one ends.
__global__ void __launch_bounds__(kThreads) runs_kernel(RowRuns a) {
  int32_t before_round = a.tile_counts[blockIdx.x];
  for (int round = 0; round < kTile / kThreads; ++round) {
    const int64_t i = int64_t{blockIdx.x} * kTile + round * kThreads + threadIdx.x;
    const bool starts = starts_run(a, i);
    int32_t total;
    const int32_t run = before_round + sum_before(starts, shared_memory<int32_t>(), &total);
    if (starts) {
      a.ids[run] = a.keys[i];
      a.starts[run] = static_cast<int32_t>(i);
    }
    if (i < a.pairs) {
      const bool has_row = a.keys[i] < a.none;
      if (!has_row && (i == 0 || a.keys[i - 1] < a.none)) a.starts[*a.count] = static_cast<int32_t>(i);
      if (has_row && i == a.pairs - 1) a.starts[*a.count] = static_cast<int32_t>(a.pairs);
    }
    before_round += total;
  }
}

template <int N, class T>
__device__ void add_rows(const RowSums& a, int64_t column, int64_t first, int64_t last, int64_t step,
                         Floats<N>* total) {
#pragma unroll 4
  for (int64_t i = first; i < last; i += step) {
    const Floats<N> row = load_floats<N>(static_cast<const T*>(a.from) + a.sources[i] * a.columns + column);
#pragma unroll
    for (int c = 0; c < N; ++c) total->values[c] += row.values[c];
  }
}

template <class Out, int N>
__device__ void store_sum(const RowSums& a, int64_t run, int64_t column, const Floats<N>& total) {
  const int64_t row = a.targets == nullptr ? run : a.targets[run];
  store_floats(static_cast<Out*>(a.out) + row * a.columns + column, total);
}

// A block has kWarps neighbouring runs at a time and 32 packs of N columns. First each warp adds up one run; then all warps share each one
// that is long (the rows of a blank's embedding), warp w the sources w, w + kWarps, ..., and the first warp adds up their sums in order.
// Reads C s bytes for each pair (4 more of indices) and writes C times the element of `out` for each run; each element has one writer.
template <class T, class Out, int N>
__global__ void __launch_bounds__(kThreads) sums_kernel(RowSums a) {
  float* shared = shared_memory<float>();  // [kWarps][N][kWarp]
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t column = (int64_t{blockIdx.y} * kWarp + lane) * N;
  const bool inside = column < a.columns;
  const int64_t runs = *a.count;
  for (int64_t first = int64_t{blockIdx.x} * kWarps; first < runs; first += int64_t{gridDim.x} * kWarps) {
    const int64_t last = smaller(first + kWarps, runs), own = first + warp;
    if (inside && own < last && a.starts[own + 1] - a.starts[own] < kLongRun) {
      Floats<N> total = zeros<N>();
      add_rows<N, T>(a, column, a.starts[own], a.starts[own + 1], 1, &total);
      store_sum<Out>(a, own, column, total);
    }
    for (int64_t run = first; run < last; ++run) {
      const int64_t begin = a.starts[run], end = a.starts[run + 1];
      if (end - begin < kLongRun) continue;
      Floats<N> total = zeros<N>();
      if (inside) add_rows<N, T>(a, column, begin + warp, end, kWarps, &total);
#pragma unroll
      for (int c = 0; c < N; ++c) shared[(warp * N + c) * kWarp + lane] = total.values[c];
      __syncthreads();
      if (warp == 0 && inside) {
        for (int other = 1; other < kWarps; ++other)
#pragma unroll
          for (int c = 0; c < N; ++c) total.values[c] += shared[(other * N + c) * kWarp + lane];
        store_sum<Out>(a, run, column, total);
      }
      __syncthreads();
    }
  }
}

// The sum over the block, in its first thread. shared [kThreads].
__device__ double block_total(double value, double* shared) {
  const int thread = static_cast<int>(threadIdx.x);
  shared[thread] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (thread < half) shared[thread] += shared[thread + half];
    __syncthreads();
  }
  return shared[0];
}

// partial[b] = the squares of what block b has of the rows, added up in packs of N. Reads 4 C bytes for each row there is.
template <int N>
__global__ void __launch_bounds__(kThreads) squares_kernel(RowsNorm a) {
  const int64_t packs = *a.count * (a.columns / N), step = int64_t{gridDim.x} * kThreads;
  double own = 0;
#pragma unroll 4
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < packs; i += step) {
    const Floats<N> x = load_floats<N>(a.values + i * N);
    float squares = 0;
#pragma unroll
    for (int c = 0; c < N; ++c) squares += x.values[c] * x.values[c];
    own += static_cast<double>(squares);
  }
  const double total = block_total(own, shared_memory<double>());
  if (threadIdx.x == 0) a.partial[blockIdx.x] = total;
}

// One block.
__global__ void __launch_bounds__(kThreads) root_kernel(RowsNorm a) {
  double own = 0;
  for (int64_t i = threadIdx.x; i < kNormBlocks; i += kThreads) own += a.partial[i];
  const double total = block_total(own, shared_memory<double>());
  if (threadIdx.x == 0) *a.norm = static_cast<float>(sqrt(total));
}

unsigned blocks(int64_t items, int64_t each) { return static_cast<unsigned>(ceil_div(items, each)); }

}  // namespace

int64_t tiles(int64_t pairs) { return ceil_div(pairs, kTile); }

void launch_row_keys(const int32_t* ids, int64_t pairs, const int32_t* count, int64_t ids_per_source,
                     int64_t first_source, int32_t none, int32_t* keys, int32_t* sources, Stream stream) {
  launch(keys_kernel, dim3(blocks(pairs, kThreads)), kThreads, 0, stream, ids, pairs, count, ids_per_source,
         first_source, none, keys, sources);
}

void launch_row_runs(const RowRuns& a, Stream stream) {
  const int64_t num_tiles = tiles(a.pairs);
  constexpr size_t kShared = kWarps * sizeof(int32_t);
  launch(count_kernel, dim3(static_cast<unsigned>(num_tiles)), kThreads, kShared, stream, a);
  launch(scan_kernel, dim3(1), kThreads, kShared, stream, a, num_tiles);
  launch(runs_kernel, dim3(static_cast<unsigned>(num_tiles)), kThreads, kShared, stream, a);
}

void launch_row_sums(Storage storage, bool to_float, const RowSums& a, Stream stream) {
  with_packs(storage, a.columns, [&](auto zero, auto n) {
    using T = decltype(zero);
    constexpr int N = decltype(n)::value;
    const dim3 grid(static_cast<unsigned>(smaller(ceil_div(a.most, kWarps), kMostBlocks)),
                    blocks(a.columns, N * kWarp));
    const size_t shared = kThreads * N * sizeof(float);
    if (to_float)
      launch(sums_kernel<T, float, N>, grid, kThreads, shared, stream, a);
    else
      launch(sums_kernel<T, T, N>, grid, kThreads, shared, stream, a);
  });
}

void launch_rows_norm(const RowsNorm& a, Stream stream) {
  constexpr size_t kShared = kThreads * sizeof(double);
  with_packs(Storage::kFloat, a.columns, [&](auto, auto n) {
    launch(squares_kernel<decltype(n)::value>, dim3(static_cast<unsigned>(kNormBlocks)), kThreads, kShared,
           stream, a);
  });
  launch(root_kernel, dim3(1), kThreads, kShared, stream, a);
}

}  // namespace blt::ops::BLT_DEVICE
