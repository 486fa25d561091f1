// What the CPU kernels of cached_attention are called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

// The memory of one sequence, all its kv heads; row p is at p % capacity, and a block of keys of window_attention
// lies in one piece because the capacity is a multiple of it.
template <class T>
struct CachedSequence {
  T* keys;    // [kv_heads, capacity / panel, width, panel]
  T* values;  // [kv_heads, capacity, wide]
  int64_t capacity;
  int64_t position;  // of the new row
};

// New rows, one a sequence: q and out [N, heads, width], k and v [N, kv_heads, width].
template <class T>
struct CachedAttention {
  const T *q, *k, *v;
  T* out;
  const CachedSequence<T>* sequences;
  int64_t heads, kv_heads, width, wide, window;
  T scale;
};

// Rows k and v [rows, kv_heads, width] into `to`, from its position on.
BLT_DECLARE_KERNEL(template <class T> void cache_rows(const CachedAttention<T>& rows, int64_t count,
                                                      const CachedSequence<T>& to))
// A unit is a sequence and a kv head: number sequence * kv_heads + kv_head. `scratch`: kAttentionKeys + wide + width elements.
BLT_DECLARE_KERNEL(template <class T> void cached_attention(const CachedAttention<T>& a, int64_t first_unit,
                                                            int64_t last_unit, T* scratch))

}  // namespace blt::ops
