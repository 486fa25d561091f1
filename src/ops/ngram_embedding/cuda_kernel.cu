// ngram_ids and ngram_embedding on CUDA.
#include "ops/cuda/kernel.h"
#include "ops/ngram_embedding/cuda_kernel.h"
#include "ops/split_mix.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 8;        // positions of a block
constexpr int kRowsAtOnce = 4;  // rows of n-gram tables that a thread asks for at once

__device__ int num_tables(const NgramIds& a) { return a.num_sizes * a.functions; }

// The rows that one hash function gives a position; `ids` are those of the position, all tables.
__device__ void hash(const NgramIds& a, int64_t position, int function, int32_t* ids) {
  const int32_t* byte = a.bytes + position;
  const int64_t document = segment_of(a.offsets, a.documents, position);
  const int64_t before = position - a.offsets[document];
  const uint64_t prime = a.primes[function % kNumPrimes];
  // The n-gram's hash is its oldest id plus prime times the hash of the (n - 1)-gram: from the newest id to the oldest.
  uint64_t h = 0;
  int64_t n = 0;
  for (int s = 0; s < a.num_sizes; ++s) {
    for (; n < a.sizes[s]; ++n)
      h = h * prime + (n <= before ? static_cast<uint64_t>(static_cast<int64_t>(byte[-n])) : 0);
    int64_t row = static_cast<int64_t>(h) % a.rows;
    if (row < 0) row += a.rows;
    const int table = function * a.num_sizes + a.tables[s];
    const bool dropped =
        document == a.documents ||  // behind all
        (a.dropped_below != 0 &&
         split_mix(a.seed, static_cast<uint64_t>(position * num_tables(a) + table)) < a.dropped_below);
    ids[table] = dropped ? -1 : static_cast<int32_t>(table * a.rows + row);
  }
}

// A thread has one position and hash function. Reads 4 bytes a position (and those before it, from the cache) and writes 4 for each table.
__global__ void __launch_bounds__(kThreads) ids_kernel(NgramIds a, int32_t* ids) {
  const int64_t unit = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (unit >= a.positions * a.functions) return;
  const int64_t position = unit / a.functions;
  hash(a, position, static_cast<int>(unit % a.functions), ids + position * num_tables(a));
}

// A block has `tile` neighbouring positions: it hashes them into shared memory, then each thread sums packs of N columns, the byte's row
// first, then the tables in their order. Bound by memory: with s bytes an element, 1 + tables rows of C s bytes read for each position (rows
// that come again soon, from the cache) and one written. Each element has one writer.
template <class T, int N>
__global__ void __launch_bounds__(kThreads, 2) embedding_kernel(NgramEmbedding a, int tile) {
  int32_t* ids = shared_memory<int32_t>();  // [tile][tables]
  const int tables = num_tables(a.ids);
  const int64_t first = int64_t{blockIdx.x} * tile;
  const int positions = static_cast<int>(smaller(tile, a.ids.positions - first));
  for (int unit = static_cast<int>(threadIdx.x); tables > 0 && unit < positions * a.ids.functions;
       unit += kThreads) {
    const int position = unit / a.ids.functions;
    hash(a.ids, first + position, unit % a.ids.functions, ids + position * tables);
  }
  __syncthreads();
  const int64_t packs = a.columns / N;
  for (int64_t item = threadIdx.x; item < positions * packs; item += kThreads) {
    const int64_t position = item / packs, column = item % packs * N;
    const T* ngrams = static_cast<const T*>(a.ngram_table) + column;
    const int32_t* own = ids + position * tables;
    Floats<N> total = load_floats<N>(static_cast<const T*>(a.byte_table) +
                                     a.ids.bytes[first + position] * a.columns + column);
    for (int table = 0; table < tables; table += kRowsAtOnce) {
      Pack<T, N> rows[kRowsAtOnce];
      bool valid[kRowsAtOnce];
#pragma unroll
      for (int r = 0; r < kRowsAtOnce; ++r) {
        valid[r] = table + r < tables && own[table + r] >= 0;
        rows[r] = valid[r] ? load_pack<N>(ngrams + own[table + r] * a.columns) : zero_pack<T, N>();
      }
#pragma unroll
      for (int r = 0; r < kRowsAtOnce; ++r) {
        if (!valid[r]) continue;
        const Floats<N> row = widen(rows[r]);
#pragma unroll
        for (int i = 0; i < N; ++i) total.values[i] += a.scale * row.values[i];
      }
    }
    store_floats(static_cast<T*>(a.out) + (first + position) * a.columns + column, total);
  }
}

}  // namespace

void launch_ngram_ids(const NgramIds& a, int32_t* ids, Stream stream) {
  launch(ids_kernel, dim3(static_cast<unsigned>(ceil_div(a.positions * a.functions, kThreads))), kThreads, 0,
         stream, a, ids);
}

void launch_ngram_embedding(Storage storage, const NgramEmbedding& a, Stream stream) {
  const int64_t tables = int64_t{a.ids.num_sizes} * a.ids.functions;
  constexpr int64_t kSharedIds = 8192;  // 32 KiB
  static_assert(kMaxTables <= kSharedIds, "the ids of a position do not fit");
  const int tile = static_cast<int>(smaller(kTile, tables == 0 ? kTile : kSharedIds / tables));
  with_packs(storage, a.columns, [&](auto zero, auto n) {
    launch(embedding_kernel<decltype(zero), decltype(n)::value>,
           dim3(static_cast<unsigned>(ceil_div(a.ids.positions, tile))), kThreads,
           static_cast<size_t>(tile * tables * 4), stream, a, tile);
  });
}

}  // namespace blt::ops::BLT_DEVICE
