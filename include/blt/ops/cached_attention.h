// Causal self-attention of new rows over keys and values that were kept: a row at a time, as generation goes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace blt::ops {

// The keys and values of one sequence in one layer, as many as a later query can see: a ring of whole blocks
// of keys where there is a window, else all of them. Grows by doubling, so that a row costs the same on
// average. On the device of its rows, in their dtype; the CPU keeps 16-bit rows as float32. Copies share their
// memory: move it, do not copy it. Not thread-safe.
class KeyCache {
 public:
  // window: as in window_attention; 0: all. Throws c10::Error on sizes below 1 or a negative window.
  KeyCache(int64_t kv_heads, int64_t head_dim, int64_t window);

  int64_t length() const { return length_; }  // rows so far, also those that are not kept any more

  // The next n rows of the sequence: k and v [n, Hkv, E], floating. The first rows decide dtype and device.
  // Throws c10::Error on another shape, dtype or device.
  void append(const at::Tensor& k, const at::Tensor& v);
  void clear();  // as new; keeps its memory

 private:
  friend at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     const std::vector<KeyCache*>& caches, double scale);
  void reserve(const at::Tensor& like, int64_t rows);

  int64_t kv_heads_, head_dim_, window_;
  int64_t length_ = 0, capacity_ = 0;
  at::ScalarType dtype_ = at::kFloat;  // of the rows
  at::Tensor keys_, values_;           // as the device's kernels lay them out
};

//   q         [N, H, E]    floating: the next row of N different sequences
//   k, v      [N, Hkv, E]  same dtype and device; H is a multiple of Hkv (grouped-query attention)
//   caches    N of Hkv heads of width E; row i of k and v is appended to caches[i]
//   returns   [N, H, E]    same dtype: row i sees what caches[i] keeps, itself included
//
// Row i depends on its own sequence alone, bit for bit. On the CPU it is, bit for bit, what window_attention gives
// the same row within its whole sequence: so what is decided from it, such as where a patch starts, is decided
// alike; elsewhere it is that up to rounding. Not differentiable. Deterministic. Time linear in the keys that are
// seen. Throws c10::Error on a wrong rank, shape, dtype or device, on a cache given twice, and when q requires a
// gradient while gradients are on. CUDA takes heads up to 128 wide.
at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<KeyCache*>& caches, double scale);

}  // namespace blt::ops
