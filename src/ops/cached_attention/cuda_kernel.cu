// cached_attention on CUDA. The keys of a query are cut into spans, a block has one of them for a kv head, and what blocks find is put together by
// a second kernel: the one query of a long sequence keeps a GPU busy. Where spans begin follows from the query's place and window, so its bits
// do not depend on the other sequences. No atomics.
//
// Bound by memory: 2 Hkv E s bytes for each key that is seen, s an element's. What spans find is 4 E + 8 bytes for each of them and head, written
// and read: of 128 keys in bfloat16, one query a kv head, 0.016 of that.
#include "ops/cached_attention/cuda_kernel.h"
#include "ops/cached_attention/cuda_spans.h"
#include "ops/cuda/running_softmax.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kThreads = 128;
constexpr int kKeys = 4;  // that a group of lanes asks for at once

// The caches that a launch is about travel among its arguments: nothing has to be copied to the device.
constexpr int64_t kMostCaches = 64;
struct Caches {
  Cache of[kMostCaches];
};

template <class T>
__global__ void __launch_bounds__(kThreads) rows_kernel(const __grid_constant__ CacheRows a) {
  constexpr int N = kPackOf<T>;
  const int64_t unit = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t packs = a.width / N, row = unit / packs / a.kv_heads, head = unit / packs % a.kv_heads;
  if (row >= a.rows) return;
  const int64_t from = unit * N;
  const int64_t to =
      (head * a.to.capacity + (a.to.position + row) % a.to.capacity) * a.width + unit % packs * N;
  store_pack(static_cast<T*>(a.to.keys) + to, load_pack<N>(static_cast<const T*>(a.k) + from));
  store_pack(static_cast<T*>(a.to.values) + to, load_pack<N>(static_cast<const T*>(a.v) + from));
}

// The first of a block's groups of kLanes lanes ends with the sums that all of them had, put together in one order.
template <int kLanes, int kRows, int N>
__device__ void put_together(RunningSoftmax<N> (&sums)[kRows]) {
  constexpr unsigned kAll = 0xffffffffu;
  constexpr int kFloats = RunningSoftmax<N>::kFloats;
#pragma unroll
  for (int distance = kLanes; distance < kWarp; distance *= 2)
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      RunningSoftmax<N> other;
#pragma unroll
      for (int i = 0; i < N; ++i)
        other.total.values[i] = __shfl_xor_sync(kAll, sums[r].total.values[i], distance);
      other.highest = __shfl_xor_sync(kAll, sums[r].highest, distance);
      other.weight = __shfl_xor_sync(kAll, sums[r].weight, distance);
      sums[r].add(other);
    }
  float* const shared = shared_memory<float>();  // [kWarps - 1][kRows][kFloats][kLanes]
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto place = [lane](int of_warp, int row, int i) {
    return (((of_warp - 1) * kRows + row) * kFloats + i) * kLanes + lane;
  };
  if (warp > 0 && lane < kLanes) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      sums[r].put([&](int i, float value) { shared[place(warp, r, i)] = value; });
  }
  __syncthreads();
  if (warp > 0 || lane >= kLanes) return;
#pragma unroll
  for (int other = 1; other < kThreads / kWarp; ++other)
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      sums[r].add(RunningSoftmax<N>::got([&](int i) { return shared[place(other, r, i)]; }));
}

template <int kLanes, int kRows, int N>
constexpr size_t kSharedBytes = sizeof(float) *
                                (kThreads / kWarp - 1) * kRows* RunningSoftmax<N>::kFloats* kLanes;

// Block x of kv head y and sequence z has a span of keys, and up to kQueries of the query heads that share them. The new key is read from where it
// came from, by all; the one block of its span that has the first heads puts it into the cache, where no block of this launch looks.
template <class T, int kLanes, int kQueries>
__global__ void __launch_bounds__(kThreads, kQueries == 1 ? 4 : 3)
    span_kernel(const __grid_constant__ CachedAttention a, const __grid_constant__ Caches caches,
                int64_t first_sequence) {
  using R = Row<T, kLanes>;
  constexpr int N = R::N, kGroups = kThreads / kLanes;
  const Cache& cache = caches.of[blockIdx.z];
  const int64_t number = blockIdx.x % a.spans, first_query = blockIdx.x / a.spans * kQueries;
  const int64_t spans = count_spans(cache.position, a.window);
  if (number >= spans) return;
  const Span span = span_of(cache.position, a.window, cache.capacity, number);
  const int64_t sequence = first_sequence + blockIdx.z, kv_head = blockIdx.y;
  const int64_t new_row = sequence * a.kv_heads + kv_head;
  const int64_t first_row = kv_head * cache.capacity + span.slot;  // of the span, in the cache
  const int group = static_cast<int>(threadIdx.x) / kLanes;
  if (number == spans - 1 && first_query == 0 && group == 0) {
    const int64_t to = first_row + cache.position - span.first;
    R::store(cache.keys, to, a.width, widen(R::load(a.k, new_row, a.width, true)));
    R::store(cache.values, to, a.width, widen(R::load(a.v, new_row, a.width, true)));
  }

  const int64_t sharing = a.heads / a.kv_heads;
  const int queries = static_cast<int>(smaller(kQueries, sharing - first_query));
  const int64_t first_head = sequence * a.heads + kv_head * sharing + first_query;
  const LaneGroup<kLanes> lanes;
  Floats<N> q[kQueries];
  RunningSoftmax<N> sums[kQueries];
#pragma unroll
  for (int r = 0; r < kQueries; ++r) {
    q[r] = widen(R::load(a.q, first_head + r, a.width, r < queries));
    sums[r].begin();
  }
  const float scale = a.scale * kLog2E;
  for (int64_t first = span.first + group; first < span.last; first += kKeys * kGroups) {
    Pack<T, N> k[kKeys], v[kKeys];
#pragma unroll
    for (int p = 0; p < kKeys; ++p) {
      const int64_t key = first + p * kGroups;
      const bool is_new = key == cache.position;
      const int64_t row = is_new ? new_row : first_row + key - span.first;
      k[p] = R::load(is_new ? a.k : cache.keys, row, a.width, key < span.last);
      v[p] = R::load(is_new ? a.v : cache.values, row, a.width, key < span.last);
    }
    float scores[kQueries][kKeys];
#pragma unroll
    for (int p = 0; p < kKeys; ++p) {
      const Floats<N> key = widen(k[p]);
#pragma unroll
      for (int r = 0; r < kQueries; ++r) {
        const float score = lanes.sum(dot(q[r], key)) * scale;
        scores[r][p] = first + p * kGroups < span.last ? score : -INFINITY;
      }
    }
    take_in(sums, scores, v);
  }
  put_together<kLanes>(sums);
  if (group > 0) return;
#pragma unroll
  for (int r = 0; r < kQueries; ++r) {
    if (r >= queries) continue;
    const int64_t row = first_head + r;
    if (spans == 1) {
      R::store(a.out, row, a.width, sums[r].result());
      continue;
    }
    const int64_t to = row * a.spans + number, column = lanes.lane * N;
    if (column < a.width) store_floats(a.totals + to * a.width + column, sums[r].total);
    if (lanes.lane == 0) {
      a.ends[2 * to] = sums[r].highest;
      a.ends[2 * to + 1] = sums[r].weight;
    }
  }
}

// A block has what the spans of one query found: each group of lanes some of them.
template <class T, int kLanes>
__global__ void __launch_bounds__(kThreads)
    merge_kernel(const __grid_constant__ CachedAttention a, const __grid_constant__ Caches caches,
                 int64_t first_sequence) {
  using R = Row<float, kLanes>;
  constexpr int N = R::N, kGroups = kThreads / kLanes;
  const int64_t spans = count_spans(caches.of[blockIdx.z].position, a.window);
  if (spans == 1) return;
  const int64_t row = (first_sequence + blockIdx.z) * a.heads + blockIdx.x;
  const int group = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  RunningSoftmax<N> sums[1];
  sums[0].begin();
#pragma unroll 4
  for (int64_t span = group; span < spans; span += kGroups) {
    const int64_t from = row * a.spans + span;
    RunningSoftmax<N> found;
    found.total = widen(R::load(a.totals, from, a.width, true));
    found.highest = a.ends[2 * from];
    found.weight = a.ends[2 * from + 1];
    sums[0].add(found);
  }
  put_together<kLanes>(sums);
  const int64_t column = int64_t{lane} * N;
  if (group == 0 && column < a.width)
    store_floats(static_cast<T*>(a.out) + row * a.width + column, sums[0].result());
}

template <class T, int kLanes, int kQueries>
void launch_spans(const CachedAttention& a, const Caches& caches, int64_t first_sequence, unsigned count,
                  Stream stream) {
  constexpr int N = kPackOf<T>;
  const int64_t blocks = ceil_div(a.heads / a.kv_heads, kQueries);  // that share a span
  const dim3 grid(static_cast<unsigned>(a.spans * (blocks > 0 ? blocks : 1)),
                  static_cast<unsigned>(a.kv_heads), count);
  launch(span_kernel<T, kLanes, kQueries>, grid, kThreads, kSharedBytes<kLanes, kQueries, N>, stream, a,
         caches, first_sequence);
}

}  // namespace

void launch_cache_rows(Storage storage, const CacheRows& a, Stream stream) {
  with_storage(storage, [&](auto zero) {
    using T = decltype(zero);
    const int64_t packs = a.rows * a.kv_heads * a.width / kPackOf<T>;
    launch(rows_kernel<T>, dim3(static_cast<unsigned>(ceil_div(packs, kThreads))), kThreads, 0, stream, a);
  });
}

void launch_cached_attention(Storage storage, const CachedAttention& a, const Cache* caches, Stream stream) {
  with_lanes(storage, a.width, [&](auto zero, auto lanes) {
    using T = decltype(zero);
    constexpr int kLanes = decltype(lanes)::value, kFloatLanes = kLanes * kPackOf<T> / kPackOf<float>;
    for (int64_t first = 0; first < a.sequences; first += kMostCaches) {
      const auto count = static_cast<unsigned>(smaller(kMostCaches, a.sequences - first));
      Caches some = {};
      for (unsigned i = 0; i < count; ++i) some.of[i] = caches[first + i];
      if (a.heads == a.kv_heads)
        launch_spans<T, kLanes, 1>(a, some, first, count, stream);
      else
        launch_spans<T, kLanes, 4>(a, some, first, count, stream);
      if (a.spans == 1 || a.heads == 0) continue;
      launch(merge_kernel<T, kFloatLanes>, dim3(static_cast<unsigned>(a.heads), 1, count), kThreads,
             kSharedBytes<kFloatLanes, 1, kPackOf<float>>, stream, a, some, first);
    }
  });
}

}  // namespace blt::ops::BLT_DEVICE
