// Hashes n-grams, gathers their rows and sums them in one pass; and sums of rows for the backward.
//
// Forward bound: (1 + tables) rows read and one written for each position. Rows of large tables are far apart, so those of the next
// position are asked for while this one's are added.
#include "ops/ngram_embedding/cpu_kernel.h"

#include "ops/cpu/simd.h"
#include "ops/split_mix.h"

namespace blt::ops::BLT_ISA {
namespace {

// x mod d, floored, for any int64 x (given as its two's complement) and 1 <= d < 2^31, without a division.
class FlooredModulo {
 public:
  explicit FlooredModulo(uint64_t d)
      : d_(d), reciprocal_(~uint64_t{0} / d), wrap_(reduce(~uint64_t{0}) + 1) {}

  uint64_t operator()(uint64_t x) const {
    const uint64_t rest = reduce(x);
    if (static_cast<int64_t>(x) >= 0) return rest;
    // x stands for x - 2^64, and 2^64 = wrap_ (mod d), wrap_ in [1, d].
    return rest >= wrap_ ? rest - wrap_ : rest + d_ - wrap_;
  }

 private:
  uint64_t reduce(uint64_t x) const {
    // The estimated quotient is at most 2 too small: floor(2^64 / d) and the product are each cut off once.
    uint64_t rest = x - static_cast<uint64_t>((static_cast<unsigned __int128>(x) * reciprocal_) >> 64) * d_;
    while (rest >= d_) rest -= d_;
    return rest;
  }

  uint64_t d_, reciprocal_, wrap_;
};

// The ids of position i, of which `before` positions precede it in its document.
inline void hash(const Bytes& bytes, int64_t i, int64_t before, const HashPlan& plan,
                 const FlooredModulo& modulo, int32_t* ids) {
  const int32_t* position = bytes.ids + i;
  for (int64_t f = 0; f < plan.functions; ++f) {
    const uint64_t prime = plan.primes[f];
    // The n-gram's hash is its oldest id plus prime times the hash of the (n - 1)-gram: from the newest id to the oldest.
    uint64_t h = 0;
    int64_t n = 0;
    for (int64_t s = 0; s < plan.num_sizes; ++s) {
      for (; n < plan.sizes[s]; ++n)
        h = h * prime + (n <= before ? static_cast<uint64_t>(static_cast<int64_t>(position[-n])) : 0);
      const int64_t table = f * plan.num_sizes + plan.tables[s];
      ids[table] =
          static_cast<int32_t>(table * static_cast<int64_t>(plan.rows) + static_cast<int64_t>(modulo(h)));
    }
  }
}

inline bool is_dropped(const HashPlan& plan, int64_t i, int64_t table, int64_t tables) {
  return split_mix(plan.seed, static_cast<uint64_t>(i * tables + table)) < plan.dropped_below;
}

// The ids of position i without those that are left out; returns how many stay. before < 0: none.
inline int64_t look_ups(const Bytes& bytes, int64_t i, int64_t before, const HashPlan& plan,
                        const FlooredModulo& modulo, int32_t* ids) {
  if (before < 0) return 0;
  hash(bytes, i, before, plan, modulo, ids);
  const int64_t tables = plan.functions * plan.num_sizes;
  if (plan.dropped_below == 0) return tables;
  int64_t count = 0;
  for (int64_t t = 0; t < tables; ++t)
    if (!is_dropped(plan, i, t, tables)) ids[count++] = ids[t];
  return count;
}

// Walks positions in order, knowing where the document of each starts.
class Walk {
 public:
  Walk(const Bytes& bytes, int64_t first) : bytes_(bytes) {
    int64_t above = bytes.documents;
    while (above - document_ > 1) {
      const int64_t middle = document_ + (above - document_) / 2;
      if (bytes.offsets[middle] <= first)
        document_ = middle;
      else
        above = middle;
    }
  }

  // How many positions precede `position` in its document, -1 behind the last one; positions must not decrease.
  int64_t before(int64_t position) {
    if (position >= bytes_.offsets[bytes_.documents]) return -1;
    while (position >= bytes_.offsets[document_ + 1]) ++document_;
    return position - bytes_.offsets[document_];
  }

 private:
  const Bytes& bytes_;
  int64_t document_ = 0;
};

template <class T>
void prefetch_rows(const NgramEmbedding<T>& a, const int32_t* ids, int64_t count) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t t = 0; t < count; ++t) {
    const T* row = a.ngram_table + ids[t] * a.columns;
    for (int64_t c = 0; c < a.columns; c += kLine) __builtin_prefetch(row + c);
  }
}

// kVectors whole vectors of columns, all in registers while the sources pass.
template <int kVectors, class T>
void sum_block(const T* const* sources, int64_t count, int64_t column, T* out) {
  Vec<T> total[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) total[v] = load(sources[0] + column + v * kLanes<T>);
  for (int64_t i = 1; i < count; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) total[v] += load(sources[i] + column + v * kLanes<T>);
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) store(out + column + v * kLanes<T>, total[v]);
}

}  // namespace

void ngram_ids(const Bytes& bytes, const HashPlan& plan, int32_t* ids, int64_t first, int64_t last) {
  const FlooredModulo modulo(plan.rows);
  const int64_t tables = plan.functions * plan.num_sizes;
  Walk walk(bytes, first);
  for (int64_t i = first; i < last; ++i) {
    int32_t* own = ids + i * tables;
    const int64_t before = walk.before(i);
    if (before >= 0) hash(bytes, i, before, plan, modulo, own);
    if (before >= 0 && plan.dropped_below == 0) continue;
    for (int64_t t = 0; t < tables; ++t)
      if (before < 0 || is_dropped(plan, i, t, tables)) own[t] = -1;
  }
}

template <class T>
void ngram_embedding(const NgramEmbedding<T>& a, int32_t* scratch, int64_t first, int64_t last) {
  if (first >= last) return;
  const FlooredModulo modulo(a.plan.rows);
  const int64_t tables = a.plan.functions * a.plan.num_sizes;
  int32_t* ids = scratch;
  int32_t* next_ids = scratch + tables;
  Walk walk(a.bytes, first);
  int64_t count = look_ups(a.bytes, first, walk.before(first), a.plan, modulo, ids), next_count = 0;
  const Vec<T> scale = splat(a.scale);
  for (int64_t i = first; i < last; ++i) {
    if (i + 1 < last) {
      next_count = look_ups(a.bytes, i + 1, walk.before(i + 1), a.plan, modulo, next_ids);
      prefetch_rows(a, next_ids, next_count);
    }
    const T* byte_row = a.byte_table + a.bytes.ids[i] * a.columns;
    T* out = a.out + i * a.columns;
    for (int64_t c = 0; c < a.columns; c += kLanes<T>) {
      const int64_t left = a.columns - c;
      if (left >= kLanes<T>) {
        Vec<T> total = load(byte_row + c);
        for (int64_t t = 0; t < count; ++t) total += scale * load(a.ngram_table + ids[t] * a.columns + c);
        store(out + c, total);
      } else {
        Vec<T> total = load(byte_row + c, left);
        for (int64_t t = 0; t < count; ++t)
          total += scale * load(a.ngram_table + ids[t] * a.columns + c, left);
        store(out + c, total, left);
      }
    }
    int32_t* const swap = ids;
    ids = next_ids;
    next_ids = swap;
    count = next_count;
  }
}

template <class T>
void sum_rows(const RowSums<T>& a, int64_t first_unit, int64_t last_unit) {
  const int64_t parts = (a.columns + kSumColumns - 1) / kSumColumns;
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t run = unit / parts;
    const T* const* sources = a.sources + a.runs[run];
    const int64_t count = a.runs[run + 1] - a.runs[run];
    T* out = a.out + (a.targets == nullptr ? run : a.targets[run]) * a.columns;
    int64_t c = unit % parts * kSumColumns;
    const int64_t end = c + kSumColumns < a.columns ? c + kSumColumns : a.columns;
    for (; c + 4 * kLanes<T> <= end; c += 4 * kLanes<T>) sum_block<4>(sources, count, c, out);
    for (; c + kLanes<T> <= end; c += kLanes<T>) sum_block<1>(sources, count, c, out);
    for (; c < end; ++c) {
      T total = sources[0][c];
      for (int64_t i = 1; i < count; ++i) total += sources[i][c];
      out[c] = total;
    }
  }
}

template void ngram_embedding(const NgramEmbedding<float>&, int32_t*, int64_t, int64_t);
template void ngram_embedding(const NgramEmbedding<double>&, int32_t*, int64_t, int64_t);
template void sum_rows(const RowSums<float>&, int64_t, int64_t);
template void sum_rows(const RowSums<double>&, int64_t, int64_t);

}  // namespace blt::ops::BLT_ISA
