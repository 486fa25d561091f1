// What the CUDA kernels of segment_attention are launched with.
#pragma once

#include "ops/cuda/storage.h"

namespace blt::ops::BLT_DEVICE {

// Rows are whole packs of kPackBytes, at most kMaxHeadWidth elements wide.
struct SegmentAttention {
  const void* q;  // [queries, heads, width]
  const void* k;  // [keys, kv_heads, width]
  const void* v;
  const int32_t* q_offsets;  // [segments + 1]
  const int32_t* k_offsets;
  void* out;   // [queries, heads, width]
  float* lse;  // [queries, heads]
  int64_t segments, queries, keys, heads, kv_heads, width;
  int64_t q_longest, k_longest;
  float scale;
};

struct SegmentAttentionBackward {
  SegmentAttention forward;
  const void* grad;  // of out
  float* delta;      // [queries, heads] scratch: grad . out; not needed where takes_one_pass()
  void* grad_q;
  void* grad_k;
  void* grad_v;
};

// Whether the backward is one pass over memory: one side of every segment has few rows.
bool takes_one_pass(const SegmentAttention& a);

// There is at least one query, key and head.
void launch_segment_attention(Storage storage, const SegmentAttention& a, Stream stream);
void launch_segment_attention_backward(Storage storage, const SegmentAttentionBackward& b, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
