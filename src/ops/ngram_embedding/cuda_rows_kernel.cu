// Gradients of table rows on CUDA: runs of equal keys, and the sum of each run's rows.
//
// Runs have from one pair (most n-grams) to a fifth of all pairs (blanks in the bytes of a text). So the pairs, not the runs, are shared out: a warp
// has kPart neighbouring ones. What it adds up of a run that lies in several parts, it leaves for a second kernel.
#include "ops/cuda/kernel.h"
#include "ops/ngram_embedding/cuda_rows_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kRowsAtOnce = 8;  // rows that a thread asks for at once

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

// before[p] = the runs that start in part p. A warp has a part. Reads 4 bytes a pair.
__global__ void __launch_bounds__(kThreads) count_kernel(RowRuns a, int64_t num_parts) {
  const int64_t part = int64_t{blockIdx.x} * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (part >= num_parts) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  int32_t count = 0;
  for (int64_t i = part * kPart; i < (part + 1) * kPart; i += kWarp)
    count += __popc(__ballot_sync(0xffffffffu, starts_run(a, i + lane)));
  if (lane == 0) a.before[part] = count;
}

// The counts become the runs before each part, *count the number of all. One block.
__global__ void __launch_bounds__(kThreads) scan_kernel(RowRuns a, int64_t num_parts) {
  int32_t before_all = 0;
  for (int64_t first = 0; first < num_parts; first += kThreads) {
    const int64_t part = first + threadIdx.x;
    const int32_t own = part < num_parts ? a.before[part] : 0;
    int32_t total;
    const int32_t before = sum_before(own, shared_memory<int32_t>(), &total);
    if (part < num_parts) a.before[part] = before_all + before;
    before_all += total;
  }
  if (threadIdx.x == 0) *a.count = before_all;
}

template <class Out, int N>
__device__ void store_sum(const RowSums& a, int64_t run, int32_t key, int64_t column,
                          const Floats<N>& total) {
  const int64_t row = a.ids == nullptr ? key : run;
  store_floats(static_cast<Out*>(a.out) + row * a.columns + column, total);
}

template <int N>
__device__ float* partial_sum(const RowSums& a, int64_t part, int which, int64_t column) {
  return a.partial + (2 * part + which) * a.columns + column;
}

// A warp has a part of the pairs and 32 packs of N columns, and goes through the pairs one after the other. Reads C s bytes for each pair (8 more
// of indices for each 32 packs) and writes C times the element of `out` for each run; each element has one writer.
template <class T, class Out, int N>
__global__ void __launch_bounds__(kThreads) sums_kernel(RowSums a) {
  constexpr int kRows = N == 1 ? kRowsAtOnce / 2 : kRowsAtOnce;  // single columns of 16 bits spilled (sm_100)
  const int64_t part = int64_t{blockIdx.x} * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  const int64_t first = part * kPart, last = smaller(first + kPart, a.runs.pairs);
  if (first >= last) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t column = (int64_t{blockIdx.y} * kWarp + lane) * N;
  const bool inside = column < a.columns;
  const T* from = static_cast<const T*>(a.from) + column;
  int32_t key = first == 0 ? a.runs.none : a.runs.keys[first - 1];  // of the run that is added up
  bool began_before = true;
  int64_t run = int64_t{a.runs.before[part]} - 1;
  bool any = false;
  Floats<N> total = zeros<N>();
  for (int64_t i = first; i < last; i += kRows) {
    int32_t keys[kRows];
    Pack<T, N> rows[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      keys[r] = i + r < last ? a.runs.keys[i + r] : a.runs.none;
      rows[r] = inside && keys[r] < a.runs.none ? load_pack<N>(from + a.sources[i + r] * a.columns)
                                                : zero_pack<T, N>();
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (keys[r] >= a.runs.none) continue;
      if (keys[r] != key) {
        if (any && inside) {
          if (began_before)
            store_floats(partial_sum<N>(a, part, 0, column), total);
          else
            store_sum<Out>(a, run, key, column, total);
        }
        key = keys[r];
        began_before = false;
        ++run;
        total = zeros<N>();
        if (a.ids != nullptr && blockIdx.y == 0 && lane == 0) a.ids[run] = key;
      }
      any = true;
      const Floats<N> row = widen(rows[r]);
#pragma unroll
      for (int c = 0; c < N; ++c) total.values[c] += row.values[c];
    }
  }
  if (!any || !inside) return;
  const bool goes_on = last < a.runs.pairs && a.runs.keys[last] == key;
  if (began_before || goes_on)
    store_floats(partial_sum<N>(a, part, began_before ? 0 : 1, column), total);
  else
    store_sum<Out>(a, run, key, column, total);
}

// Puts the sums of each run together that goes on behind the part in which it starts, in order. A warp has a part, as above.
template <class Out, int N>
__global__ void __launch_bounds__(kThreads) join_kernel(RowSums a) {
  const int64_t part = int64_t{blockIdx.x} * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  const int64_t first = part * kPart, last = first + kPart;
  if (last >= a.runs.pairs) return;
  const int32_t key = a.runs.keys[last];
  const bool starts_here = first == 0 || a.runs.keys[first - 1] != key;
  if (key >= a.runs.none || a.runs.keys[last - 1] != key || !starts_here) return;
  const int64_t column = (int64_t{blockIdx.y} * kWarp + static_cast<int>(threadIdx.x) % kWarp) * N;
  if (column >= a.columns) return;
  const int64_t end_part =
      ceil_div(last + count_below(a.runs.keys + last, a.runs.pairs - last, int64_t{key} + 1), kPart);
  Floats<N> total = load_floats<N>(partial_sum<N>(a, part, 1, column));
#pragma unroll 8
  for (int64_t p = part + 1; p < end_part; ++p) {
    const Floats<N> more = load_floats<N>(partial_sum<N>(a, p, 0, column));
#pragma unroll
    for (int c = 0; c < N; ++c) total.values[c] += more.values[c];
  }
  store_sum<Out>(a, int64_t{a.runs.before[part + 1]} - 1, key, column, total);
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

int64_t parts(int64_t pairs) { return ceil_div(pairs, kPart); }

void launch_row_keys(const int32_t* ids, int64_t pairs, const int32_t* count, int64_t ids_per_source,
                     int64_t first_source, int32_t none, int32_t* keys, int32_t* sources, Stream stream) {
  launch(keys_kernel, dim3(blocks(pairs, kThreads)), kThreads, 0, stream, ids, pairs, count, ids_per_source,
         first_source, none, keys, sources);
}

void launch_row_runs(const RowRuns& a, Stream stream) {
  const int64_t num_parts = parts(a.pairs);
  launch(count_kernel, dim3(blocks(num_parts, kWarps)), kThreads, 0, stream, a, num_parts);
  launch(scan_kernel, dim3(1), kThreads, kWarps * sizeof(int32_t), stream, a, num_parts);
}

void launch_row_sums(Storage storage, bool to_float, const RowSums& a, Stream stream) {
  with_packs(storage, a.columns, [&](auto zero, auto n) {
    using T = decltype(zero);
    constexpr int N = decltype(n)::value;
    // Without columns there are still ids to write.
    const dim3 grid(blocks(parts(a.runs.pairs), kWarps),
                    blocks(a.columns == 0 ? 1 : a.columns, int64_t{N} * kWarp));
    launch(to_float ? sums_kernel<T, float, N> : sums_kernel<T, T, N>, grid, kThreads, 0, stream, a);
    launch(to_float ? join_kernel<float, N> : join_kernel<T, N>, grid, kThreads, 0, stream, a);
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
