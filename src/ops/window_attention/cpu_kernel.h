// What the CPU kernels of window_attention are called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

constexpr int64_t kAttentionQueries = 64;  // of one document and head: the unit of work
constexpr int64_t kAttentionKeys = 128;    // seen at a time, so that the scores stay in the L2 cache

// Rows [T, heads, width], contiguous. Widths are padded to `wide` columns, whole vectors, in what is packed.
template <class T>
struct AttentionInputs {
  const T *q, *k, *v;
  int64_t heads, kv_heads, width, wide, window;
  T scale;
};

// A document's rows, and one of its heads. (No functions here: see ops/cpu/simd.h.)
struct AttentionDocument {
  int64_t first, length, head;
  int64_t padded;  // the length in whole panels of keys: a multiple of 32
  int64_t blocks;  // in blocks of kAttentionQueries
};

// The keys of a document and kv head as products read them.
template <class T>
struct PackedKeys {
  T* keys;    // panels [padded / panel, width, panel] of keys turned
  T* values;  // [padded, wide]
};

template <class T>
struct AttentionOutputs {
  T* out;  // [T, heads, width]
  T* lse;  // [T, heads]
};

template <class T>
struct AttentionGradients {
  const T *grad, *out, *lse;
  T *grad_q, *grad_k, *grad_v;
};

// document.head is a kv head.
BLT_DECLARE_KERNEL(template <class T> void attention_pack(const AttentionInputs<T>& in,
                                                          const AttentionDocument& document,
                                                          const PackedKeys<T>& to))
// The queries of block `block` of a document and head; `packed` are the keys of its kv head.
BLT_DECLARE_KERNEL(template <class T> void attention_forward(const AttentionInputs<T>& in,
                                                             const AttentionDocument& document, int64_t block,
                                                             const PackedKeys<T>& packed,
                                                             const AttentionOutputs<T>& to, T* scratch))
// The gradients of a document and kv head, and of the queries of all heads that share it.
BLT_DECLARE_KERNEL(template <class T> void attention_backward(const AttentionInputs<T>& in,
                                                              const AttentionDocument& document,
                                                              const AttentionGradients<T>& to, T* scratch))

}  // namespace blt::ops
