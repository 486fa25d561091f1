// Attention of a block of queries over blocks of keys, with a running maximum: linear memory, and nothing that depends on what else is
// in the batch. A block's scores are one matrix product in registers, its output another.
#include "ops/window_attention/softmax.h"
#include "ops/window_attention/tiles.h"

namespace blt::ops::BLT_ISA {
namespace {

template <class T>
struct Running {
  T* largest;  // [kAttentionQueries] of the scores so far
  T* total;    // [kAttentionQueries] of their exponentials, relative to the largest
};

// One block of keys: scores to exponentials, and their products with the values onto the output.
template <class T>
void add_keys(const QueryBlock& block, const Range& keys, T* scores, const Running<T>& running,
              const T* values, int64_t wide, T* out) {
  block.each_rows<kStripRows>(keys, [&](int64_t strip, const Range& seen) {
    const Range all{seen.first - keys.first, seen.last - keys.first};
    for (int64_t row = strip; row < strip + block.rows(strip, kStripRows).length(); ++row) {
      const Range own = keys_seen(block.rows(row, 1), block.window).within(keys);
      const T shrink = exponentiate(scores + row * kAttentionKeys, all,
                                    Range{own.first - keys.first, own.last - keys.first},
                                    running.largest[row], running.total[row]);
      if (shrink != 1)
        for (int64_t e = 0; e < wide; e += kLanes<T>)
          store(out + row * wide + e, load(out + row * wide + e) * splat(shrink));
    }
    for (int64_t row = strip; row < strip + kStripRows; row += kTileRows)
      add_product<kAttentionKeys, 1>(scores + row * kAttentionKeys + all.first, values + seen.first * wide,
                                     seen.length(), out + row * wide, wide);
  });
}

}  // namespace

template <class T>
void attention_pack(const AttentionInputs<T>& in, const AttentionDocument& document,
                    const PackedKeys<T>& to) {
  const int64_t stride = in.kv_heads * in.width, at = document.first * stride + document.head * in.width;
  pack_turned<kPanelColumns<T>>(in.k + at, stride, document.length, in.width, T{1}, to.keys);
  pack_rows(in.v + at, stride, document.length, in.width, in.wide, T{1}, to.values);
}

template <class T>
void attention_forward(const AttentionInputs<T>& in, const AttentionDocument& document, int64_t number,
                       const PackedKeys<T>& packed, const AttentionOutputs<T>& to, T* scratch) {
  const QueryBlock block(document, number, in.window);
  const int64_t count = block.queries.length(), stride = in.heads * in.width;
  const int64_t at = (document.first + block.queries.first) * stride + document.head * in.width;
  T* const scores = scratch;
  T* const out = scores + kAttentionQueries * kAttentionKeys;
  T* const strips = out + kAttentionQueries * in.wide;
  const Running<T> running{strips + kAttentionQueries * in.width,
                           strips + kAttentionQueries * (in.width + 1)};
  pack_turned<kStripRows>(in.q + at, stride, count, in.width, in.scale, strips);
  for (int64_t i = 0; i < kAttentionQueries * in.wide; ++i) out[i] = 0;
  for (int64_t row = 0; row < count; ++row) {
    running.largest[row] = -static_cast<T>(__builtin_inf());
    running.total[row] = 0;
  }
  block.each_key_block([&](const Range& keys) {
    multiply_strips(block, keys, strips, packed.keys, in.width, scores);
    add_keys(block, keys, scores, running, packed.values, in.wide, out);
  });
  for (int64_t row = 0; row < count; ++row) {
    const T share = 1 / running.total[row];
    for (int64_t e = 0; e < in.width; ++e) to.out[at + row * stride + e] = out[row * in.wide + e] * share;
    const T log = sizeof(T) == 4 ? static_cast<T>(__builtin_logf(static_cast<float>(running.total[row])))
                                 : static_cast<T>(__builtin_log(running.total[row]));
    to.lse[(document.first + block.queries.first + row) * in.heads + document.head] =
        running.largest[row] + log;
  }
}

template void attention_pack(const AttentionInputs<float>&, const AttentionDocument&,
                             const PackedKeys<float>&);
template void attention_pack(const AttentionInputs<double>&, const AttentionDocument&,
                             const PackedKeys<double>&);
template void attention_forward(const AttentionInputs<float>&, const AttentionDocument&, int64_t,
                                const PackedKeys<float>&, const AttentionOutputs<float>&, float*);
template void attention_forward(const AttentionInputs<double>&, const AttentionDocument&, int64_t,
                                const PackedKeys<double>&, const AttentionOutputs<double>&, double*);

}  // namespace blt::ops::BLT_ISA
