// What the plain CUDA kernels of window_attention are launched with.
#pragma once

#include "ops/cuda/storage.h"

namespace blt::ops::BLT_DEVICE {

// Rows are whole packs of kPackBytes, at most kMaxHeadWidth elements wide.
struct WindowAttention {
  const void* q;  // [rows, heads, width]
  const void* k;  // [rows, kv_heads, width]
  const void* v;
  const int32_t* offsets;  // [documents + 1]
  void* out;               // [rows, heads, width]
  float* lse;              // [rows, heads]
  int64_t documents, rows, heads, kv_heads, width;
  int64_t window;  // keys that a query sees; at least 1
  float scale;
};

struct WindowAttentionBackward {
  WindowAttention forward;
  const void* grad;  // of out
  float* delta;      // [rows, heads] scratch: grad . out
  void* grad_q;
  void* grad_k;
  void* grad_v;
};

// There is at least one row and head.
void launch_window_attention(Storage storage, const WindowAttention& a, Stream stream);
void launch_window_attention_backward(Storage storage, const WindowAttentionBackward& b, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
