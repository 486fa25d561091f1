// The gradients of attention: scores again from the log-sum-exp, then five products a block of queries and of keys. One thread owns a
// document and kv head, and adds in the order of heads, queries and keys: no atomics, and the same sums on any number of threads.
#include "ops/window_attention/tiles.h"

namespace blt::ops::BLT_ISA {
namespace {

// What a document and kv head keeps from block to block.
template <class T>
struct KeyScratch {
  T *keys_turned, *values_turned;  // panels
  T *keys, *grad_k, *grad_v;       // [padded, wide]
};

// What a block of queries keeps.
template <class T>
struct QueryScratch {
  T *q_strips, *grad_strips;
  T *q, *grad, *grad_q;            // [kAttentionQueries, wide]
  T *probabilities, *grad_scores;  // [kAttentionQueries, kAttentionKeys]
  T *lse, *delta;  // [kAttentionQueries]; delta is grad . out, a row's mean gradient of its scores
};

// Scores to probabilities, and the gradients of those to gradients of scores; 0 where a row's query does not see.
template <class T>
void differentiate(const QueryBlock& block, const Range& keys, const QueryScratch<T>& s) {
  const Vec<T> nothing = splat(-static_cast<T>(__builtin_inf()));
  block.each_rows<kStripRows>(keys, [&](int64_t strip, const Range& seen) {
    const Range all{seen.first - keys.first, seen.last - keys.first};
    for (int64_t row = strip; row < strip + block.rows(strip, kStripRows).length(); ++row) {
      Range own = keys_seen(block.rows(row, 1), block.window).within(keys);
      own = {own.first - keys.first, own.last - keys.first};
      const Vec<T> lse = splat(s.lse[row]), delta = splat(s.delta[row]);
      T* const p_row = s.probabilities + row * kAttentionKeys;
      T* const ds_row = s.grad_scores + row * kAttentionKeys;
      each_vector<T>(all, [&](int64_t at) {
        const Vec<T> p = exp(keep(load(p_row + at) - lse, at, own, nothing));
        store(p_row + at, p);
        store(ds_row + at, keep(p * (load(ds_row + at) - delta), at, own, zeros<T>()));
      });
    }
  });
}

template <class T>
void add_gradients(const QueryBlock& block, const Range& keys, int64_t wide, const QueryScratch<T>& s,
                   const KeyScratch<T>& k) {
  block.each_rows<kTileRows>(keys, [&](int64_t row, const Range& seen) {
    add_product<kAttentionKeys, 1>(s.grad_scores + row * kAttentionKeys + seen.first - keys.first,
                                   k.keys + seen.first * wide, seen.length(), s.grad_q + row * wide, wide);
  });
  for (int64_t key = keys.first; key < keys.last; key += kTileRows) {
    const Range seeing =
        queries_seeing({key, least(key + kTileRows, keys.last)}, block.window).within(block.queries);
    if (seeing.empty()) continue;
    const int64_t first = seeing.first - block.queries.first, at = first * kAttentionKeys + key - keys.first;
    add_product<1, kAttentionKeys>(s.probabilities + at, s.grad + first * wide, seeing.length(),
                                   k.grad_v + key * wide, wide);
    add_product<1, kAttentionKeys>(s.grad_scores + at, s.q + first * wide, seeing.length(),
                                   k.grad_k + key * wide, wide);
  }
}

template <class T>
void load_queries(const AttentionInputs<T>& in, const AttentionGradients<T>& to, int64_t first_row,
                  int64_t head, int64_t count, const QueryScratch<T>& s) {
  const int64_t stride = in.heads * in.width, at = first_row * stride + head * in.width;
  pack_turned<kStripRows>(in.q + at, stride, count, in.width, in.scale, s.q_strips);
  pack_turned<kStripRows>(to.grad + at, stride, count, in.width, T{1}, s.grad_strips);
  pack_rows(in.q + at, stride, count, in.width, in.wide, in.scale, s.q);
  pack_rows(to.grad + at, stride, count, in.width, in.wide, T{1}, s.grad);
  for (int64_t i = 0; i < kAttentionQueries * in.wide; ++i) s.grad_q[i] = 0;
  for (int64_t row = 0; row < count; ++row) {
    const T *grad = to.grad + at + row * stride, *out = to.out + at + row * stride;
    Vec<T> products = zeros<T>();
    int64_t e = 0;
    for (; e + kLanes<T> <= in.width; e += kLanes<T>) products = fma(load(grad + e), load(out + e), products);
    if (e < in.width) products = fma(load(grad + e, in.width - e), load(out + e, in.width - e), products);
    s.delta[row] = sum(products);
    s.lse[row] = to.lse[(first_row + row) * in.heads + head];
  }
}

}  // namespace

template <class T>
void attention_backward(const AttentionInputs<T>& in, const AttentionDocument& document,
                        const AttentionGradients<T>& to, T* scratch) {
  const auto take = [&](int64_t size) {
    T* const taken = scratch;
    scratch += size;
    return taken;
  };
  const int64_t padded = document.padded, wide = in.wide;
  // Whole vectors first, so that they are aligned.
  QueryScratch<T> s;
  s.probabilities = take(kAttentionQueries * kAttentionKeys);
  s.grad_scores = take(kAttentionQueries * kAttentionKeys);
  s.q = take(kAttentionQueries * wide);
  s.grad = take(kAttentionQueries * wide);
  s.grad_q = take(kAttentionQueries * wide);
  KeyScratch<T> k;
  k.keys = take(padded * wide);
  k.grad_k = take(padded * wide);
  k.grad_v = take(padded * wide);
  k.keys_turned = take(padded * in.width);
  k.values_turned = take(padded * in.width);
  s.q_strips = take(kAttentionQueries * in.width);
  s.grad_strips = take(kAttentionQueries * in.width);
  s.lse = take(kAttentionQueries);
  s.delta = take(kAttentionQueries);

  const int64_t kv_stride = in.kv_heads * in.width,
                kv_at = document.first * kv_stride + document.head * in.width;
  pack_turned<kPanelColumns<T>>(in.k + kv_at, kv_stride, document.length, in.width, T{1}, k.keys_turned);
  pack_turned<kPanelColumns<T>>(in.v + kv_at, kv_stride, document.length, in.width, T{1}, k.values_turned);
  pack_rows(in.k + kv_at, kv_stride, document.length, in.width, wide, T{1}, k.keys);
  for (int64_t i = 0; i < padded * wide; ++i) k.grad_k[i] = k.grad_v[i] = 0;

  const int64_t group = in.heads / in.kv_heads, stride = in.heads * in.width;
  for (int64_t head = document.head * group; head < (document.head + 1) * group; ++head) {
    for (int64_t number = 0; number < document.blocks; ++number) {
      const QueryBlock block(document, number, in.window);
      const int64_t first_row = document.first + block.queries.first, count = block.queries.length();
      load_queries(in, to, first_row, head, count, s);
      block.each_key_block([&](const Range& keys) {
        multiply_strips(block, keys, s.q_strips, k.keys_turned, in.width, s.probabilities);
        multiply_strips(block, keys, s.grad_strips, k.values_turned, in.width, s.grad_scores);
        differentiate(block, keys, s);
        add_gradients(block, keys, wide, s, k);
      });
      T* const grad_q = to.grad_q + first_row * stride + head * in.width;
      for (int64_t row = 0; row < count; ++row)
        for (int64_t e = 0; e < in.width; ++e) grad_q[row * stride + e] = s.grad_q[row * wide + e] * in.scale;
    }
  }
  for (int64_t row = 0; row < document.length; ++row) {
    for (int64_t e = 0; e < in.width; ++e) to.grad_k[kv_at + row * kv_stride + e] = k.grad_k[row * wide + e];
    for (int64_t e = 0; e < in.width; ++e) to.grad_v[kv_at + row * kv_stride + e] = k.grad_v[row * wide + e];
  }
}

template void attention_backward(const AttentionInputs<float>&, const AttentionDocument&,
                                 const AttentionGradients<float>&, float*);
template void attention_backward(const AttentionInputs<double>&, const AttentionDocument&,
                                 const AttentionGradients<double>&, double*);

}  // namespace blt::ops::BLT_ISA
