// What the CPU kernels of segment_attention are called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

// All rows are contiguous. A unit is the pair (segment, key head), number segment * kv_heads + head; units do not share any output.
template <class T>
struct SegmentAttention {
  const T* q;  // [Nq, heads, width]
  const T* k;  // [Nk, kv_heads, width]
  const T* v;
  const int32_t* q_offsets;
  const int32_t* k_offsets;
  T* out;  // like q
  T* lse;  // [Nq, heads]
  int64_t heads, kv_heads, width;
  T scale;
};

template <class T>
struct SegmentAttentionBackward {
  SegmentAttention<T> forward;  // out and lse are read
  const T* grad;                // like q
  T* grad_q;
  T* grad_k;
  T* grad_v;
};

BLT_DECLARE_KERNEL(template <class T> void segment_attention(const SegmentAttention<T>& a, int64_t first_unit,
                                                             int64_t last_unit))
BLT_DECLARE_KERNEL(template <class T> void segment_attention_backward(const SegmentAttentionBackward<T>& b,
                                                                      int64_t first_unit, int64_t last_unit))

}  // namespace blt::ops
