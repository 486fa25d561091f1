// What the arguments of cached_attention's schemas must be, wherever they are entered.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace blt::ops {

void check_cache_rows(const at::Tensor& k, const at::Tensor& v, const at::Tensor& keys,
                      const at::Tensor& values, int64_t position);
void check_cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            at::TensorList keys, at::TensorList values, at::IntArrayRef positions,
                            int64_t window);

// Keys in a panel, and columns of a vector, of a cache's dtype (float or double).
inline int64_t cache_panel(at::ScalarType dtype) { return dtype == at::kDouble ? 16 : 32; }
inline int64_t cache_lanes(at::ScalarType dtype) { return dtype == at::kDouble ? 8 : 16; }

constexpr int64_t kCacheBlock = 128;  // a cache's rows are a multiple of this: blocks of keys never wrap

}  // namespace blt::ops
