// What the arguments of cached_attention's schemas must be, wherever they are entered, and how a cache lies in the CPU's memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace blt::ops {

constexpr int64_t kCacheBlock = 128;  // a cache's rows are a multiple of this: blocks of keys never wrap

// The tensors of a cache. Row p of a sequence is at p modulo the capacity, which is the size 1 of the values.
struct CacheLayout {
  at::ScalarType dtype;
  std::vector<int64_t> keys, values;  // sizes
};
// Of a cache of `capacity` rows like `rows` [n, Hkv, E]: each kind of kernels has its own.
using LayoutOf = CacheLayout(const at::Tensor& rows, int64_t capacity);

void check_cache_memory(const at::Tensor& rows, int64_t capacity);
void check_cache_rows(const at::Tensor& k, const at::Tensor& v, const at::Tensor& keys,
                      const at::Tensor& values, int64_t position, LayoutOf* layout);
void check_cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            at::TensorList keys, at::TensorList values, at::IntArrayRef positions,
                            int64_t window, LayoutOf* layout);

// On the CPU, and in shapes alone: keys [Hkv, capacity / panel, E, panel] in panels, turned, as products read them; values
// [Hkv, capacity, E in whole vectors]. Float, or double.
LayoutOf panel_layout;

}  // namespace blt::ops
