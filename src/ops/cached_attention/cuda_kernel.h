// What the CUDA kernels of cached_attention are launched with.
#pragma once

#include "ops/cuda/storage.h"

namespace blt::ops::BLT_DEVICE {

// Rows are whole packs of kPackBytes, at most kMaxHeadWidth elements wide.

// The cache of one sequence. Row p of the sequence is at p modulo the capacity, a multiple of kSpan (cuda_spans.h).
struct Cache {
  void* keys;  // [kv_heads, capacity, width]
  void* values;
  int64_t capacity;
  int64_t position;  // of the new row, or of the first one
};

struct CacheRows {
  const void* k;  // [rows, kv_heads, width]
  const void* v;
  Cache to;
  int64_t rows, kv_heads, width;
};

struct CachedAttention {
  const void* q;  // [sequences, heads, width]
  const void* k;  // [sequences, kv_heads, width]
  const void* v;
  void* out;      // [sequences, heads, width]
  float* totals;  // [sequences, heads, spans, width] scratch, of each span; null where there is one
  float* ends;    // [sequences, heads, spans, 2] likewise: highest score, weight
  int64_t sequences, heads, kv_heads, width;
  int64_t spans;   // the most of any sequence
  int64_t window;  // keys that a query sees at most; 0: all
  float scale;
};

// There is at least one of each size, but for heads.
void launch_cache_rows(Storage storage, const CacheRows& a, Stream stream);
// caches: on the host, one for each sequence.
void launch_cached_attention(Storage storage, const CachedAttention& a, const Cache* caches, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
