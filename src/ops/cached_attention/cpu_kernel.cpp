// One query over its keys, in the blocks and in the order of window_attention: every sum is the one that stands there.
//
// Bound by reading the keys and values: 8 bytes for each key, kv head and element of its width (float).
#include "ops/cached_attention/cpu_kernel.h"

#include "ops/window_attention/softmax.h"

namespace blt::ops::BLT_ISA {
namespace {

// One head's rows of a cache.
template <class T>
struct HeadRows {
  T *keys, *values;
  int64_t capacity;
};

template <class T>
HeadRows<T> head_rows(const CachedAttention<T>& a, const CachedSequence<T>& s, int64_t kv_head) {
  return {s.keys + kv_head * s.capacity * a.width, s.values + kv_head * s.capacity * a.wide, s.capacity};
}

template <class T>
void put_row(const CachedAttention<T>& a, const T* k, const T* v, int64_t position, const HeadRows<T>& to) {
  constexpr int64_t kPanel = kPanelColumns<T>;
  const int64_t slot = position % to.capacity;
  T* const key = to.keys + slot / kPanel * kPanel * a.width + slot % kPanel;
  T* const value = to.values + slot * a.wide;
  for (int64_t e = 0; e < a.width; ++e) {
    key[e * kPanel] = k[e];
    value[e] = v[e];
  }
}

// `out` [wide] += the exponentials times the values.
template <class T>
void add_values(const T* scores, const T* values, int64_t keys, int64_t wide, T* out) {
  int64_t column = 0;
  for (; column + 2 * kLanes<T> <= wide; column += 2 * kLanes<T>)
    tile<1, 2, 1, 1, true>(scores, values + column, wide, keys, out + column, wide);
  if (column < wide) tile<1, 1, 1, 1, true>(scores, values + column, wide, keys, out + column, wide);
}

template <class T>
void attend(const CachedAttention<T>& a, const T* from, int64_t position, const HeadRows<T>& rows, T* to,
            T* scratch) {
  constexpr int64_t kPanel = kPanelColumns<T>;
  T* const scores = scratch;
  T* const out = scores + kAttentionKeys;
  T* const q = out + a.wide;
  for (int64_t e = 0; e < a.width; ++e) q[e] = from[e] * a.scale;
  for (int64_t e = 0; e < a.wide; ++e) out[e] = 0;
  T largest = -static_cast<T>(__builtin_inf()), total = 0;
  const Range all = keys_seen(Range{position, position + 1}, a.window);
  for (int64_t key = all.first / kAttentionKeys * kAttentionKeys; key < all.last; key += kAttentionKeys) {
    const Range block = all.within(Range{key, key + kAttentionKeys});
    const Range seen{block.first - key, block.last - key};
    const int64_t slot = key % rows.capacity;
    for (int64_t at = seen.first / kPanel * kPanel; at < seen.last; at += kPanel)
      tile<1, 2, 1, 1, false>(q, rows.keys + (slot + at) * a.width, kPanel, a.width, scores + at, kPanel);
    const T shrink = exponentiate(scores, seen, seen, largest, total);
    if (shrink != 1)
      for (int64_t e = 0; e < a.wide; e += kLanes<T>) store(out + e, load(out + e) * splat(shrink));
    add_values(scores + seen.first, rows.values + (slot + seen.first) * a.wide, seen.length(), a.wide, out);
  }
  const T share = 1 / total;
  for (int64_t e = 0; e < a.width; ++e) to[e] = out[e] * share;
}

}  // namespace

template <class T>
void cache_rows(const CachedAttention<T>& rows, int64_t count, const CachedSequence<T>& to) {
  for (int64_t row = 0; row < count; ++row)
    for (int64_t head = 0; head < rows.kv_heads; ++head) {
      const int64_t at = (row * rows.kv_heads + head) * rows.width;
      put_row(rows, rows.k + at, rows.v + at, to.position + row, head_rows(rows, to, head));
    }
}

template <class T>
void cached_attention(const CachedAttention<T>& a, int64_t first_unit, int64_t last_unit, T* scratch) {
  const int64_t group = a.heads / a.kv_heads;
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t sequence = unit / a.kv_heads, kv_head = unit % a.kv_heads;
    const CachedSequence<T>& s = a.sequences[sequence];
    const HeadRows<T> rows = head_rows(a, s, kv_head);
    put_row(a, a.k + unit * a.width, a.v + unit * a.width, s.position, rows);
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const int64_t at = (sequence * a.heads + head) * a.width;
      attend(a, a.q + at, s.position, rows, a.out + at, scratch);
    }
  }
}

template void cache_rows(const CachedAttention<float>&, int64_t, const CachedSequence<float>&);
template void cache_rows(const CachedAttention<double>&, int64_t, const CachedSequence<double>&);
template void cached_attention(const CachedAttention<float>&, int64_t, int64_t, float*);
template void cached_attention(const CachedAttention<double>&, int64_t, int64_t, double*);

}  // namespace blt::ops::BLT_ISA
