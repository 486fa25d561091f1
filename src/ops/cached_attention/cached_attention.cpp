// cached_attention: schema, doors, shapes, and the memory of a cache.
#include "blt/ops/cached_attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>

#include "ops/cached_attention/check.h"
#include "ops/cpu/kernel_type.h"
#include "ops/door.h"

namespace blt::ops {
namespace {

using at::Tensor;

// A cache is two tensors that cache_memory makes, as the kernels of the device lay them out.
TORCH_LIBRARY_FRAGMENT(blt, m) {
  m.def("cache_memory(Tensor rows, int capacity) -> (Tensor keys, Tensor values)");
  m.def("cache_rows(Tensor k, Tensor v, Tensor(a!) keys, Tensor(b!) values, int position) -> ()");
  m.def(
      "cached_attention(Tensor q, Tensor k, Tensor v, Tensor(a!)[] keys, Tensor(b!)[] values, int[] "
      "positions, "
      "int window, float scale) -> Tensor");
}

using CacheMemory = std::tuple<Tensor, Tensor>(const Tensor& rows, int64_t capacity);
using CacheRows = void(const Tensor& k, const Tensor& v, const Tensor& keys, const Tensor& values,
                       int64_t position);
using Attend = Tensor(const Tensor& q, const Tensor& k, const Tensor& v, at::TensorList keys,
                      at::TensorList values, at::IntArrayRef positions, int64_t window, double scale);

std::tuple<Tensor, Tensor> meta_memory(const Tensor& rows, int64_t capacity) {
  check_cache_memory(rows, capacity);
  const CacheLayout layout = panel_layout(rows, capacity);
  const auto options = rows.options().dtype(layout.dtype);
  return {at::empty(layout.keys, options), at::empty(layout.values, options)};
}

void meta_rows(const Tensor& k, const Tensor& v, const Tensor& keys, const Tensor& values, int64_t position) {
  check_cache_rows(k, v, keys, values, position, panel_layout);
}

Tensor meta(const Tensor& q, const Tensor& k, const Tensor& v, at::TensorList keys, at::TensorList values,
            at::IntArrayRef positions, int64_t window, double) {
  check_cached_attention(q, k, v, keys, values, positions, window, panel_layout);
  return at::empty_like(q, at::MemoryFormat::Contiguous);
}

TORCH_LIBRARY_IMPL(blt, Meta, m) {
  m.impl("cache_memory", meta_memory);
  m.impl("cache_rows", meta_rows);
  m.impl("cached_attention", meta);
}

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// keys and values: those of one cache; rows [n, Hkv, E]: like its own.
void check_cache(const char* op, const Tensor& rows, const Tensor& keys, const Tensor& values,
                 int64_t position, LayoutOf* layout) {
  TORCH_CHECK(rows.dim() == 3 && rows.is_floating_point(), op, ": rows must be [n, Hkv, E] floating, got ",
              rows.scalar_type(), " ", rows.sizes());
  check_one_device(op, {"rows", rows}, {{"keys", keys}, {"values", values}});
  const int64_t capacity = values.dim() == 3 ? values.size(1) : 0;
  const CacheLayout expected = layout(rows, capacity);
  TORCH_CHECK(capacity % kCacheBlock == 0 && keys.scalar_type() == expected.dtype &&
                  values.scalar_type() == expected.dtype && keys.sizes() == expected.keys &&
                  values.sizes() == expected.values && keys.is_contiguous() && values.is_contiguous(),
              op, ": keys ", keys.scalar_type(), " ", keys.sizes(), " and values ", values.scalar_type(), " ",
              values.sizes(), " are no cache of rows ", rows.scalar_type(), " ", rows.sizes());
  TORCH_CHECK(position >= 0, op, ": positions are 0 or more, got ", position);
}

}  // namespace

CacheLayout panel_layout(const Tensor& rows, int64_t capacity) {
  const at::ScalarType dtype = kernel_type(rows);
  const int64_t panel = dtype == at::kDouble ? 16 : 32, lanes = dtype == at::kDouble ? 8 : 16;
  const int64_t heads = rows.size(1), width = rows.size(2);
  return {dtype, {heads, capacity / panel, width, panel}, {heads, capacity, round_up(width, lanes)}};
}

void check_cache_memory(const Tensor& rows, int64_t capacity) {
  TORCH_CHECK(rows.dim() == 3 && rows.is_floating_point(),
              "cache_memory: rows must be [n, Hkv, E] floating, got ", rows.scalar_type(), " ", rows.sizes());
  TORCH_CHECK(capacity >= 0 && capacity % kCacheBlock == 0,
              "cache_memory: the capacity must be a multiple of ", kCacheBlock, ", got ", capacity);
}

void check_cache_rows(const Tensor& k, const Tensor& v, const Tensor& keys, const Tensor& values,
                      int64_t position, LayoutOf* layout) {
  check_one_type("cache_rows", {"k", k}, {{"v", v}});
  TORCH_CHECK(v.sizes() == k.sizes(), "cache_rows: v must be like k ", k.sizes(), ", got ", v.sizes());
  check_cache("cache_rows", k, keys, values, position, layout);
  TORCH_CHECK(k.size(0) <= values.size(1), "cache_rows: ", k.size(0), " rows do not fit a cache of ",
              values.size(1));
}

void check_cached_attention(const Tensor& q, const Tensor& k, const Tensor& v, at::TensorList keys,
                            at::TensorList values, at::IntArrayRef positions, int64_t window,
                            LayoutOf* layout) {
  TORCH_CHECK(q.dim() == 3 && k.dim() == 3 && v.sizes() == k.sizes() && q.size(0) == k.size(0) &&
                  q.size(2) == k.size(2) && k.size(1) > 0 && q.size(1) % k.size(1) == 0,
              "cached_attention: q [N, H, E] and k, v [N, Hkv, E] with Hkv a divisor of H, got ", q.sizes(),
              ", ", k.sizes(), " and ", v.sizes());
  TORCH_CHECK(q.is_floating_point(), "cached_attention: q must be floating, got ", q.scalar_type());
  check_one_type("cached_attention", {"q", q}, {{"k", k}, {"v", v}});
  const auto count = static_cast<size_t>(q.size(0));
  TORCH_CHECK(keys.size() == count && values.size() == count && positions.size() == count,
              "cached_attention: ", count, " rows, but ", keys.size(), " caches and ", positions.size(),
              " positions");
  TORCH_CHECK(window >= 0, "cached_attention: window must be 0 or more, got ", window);
  for (size_t i = 0; i < count; ++i) {
    check_cache("cached_attention", k, keys[i], values[i], positions[i], layout);
    const int64_t seen = window > 0 ? std::min(window, positions[i] + 1) : positions[i] + 1;
    TORCH_CHECK(seen <= values[i].size(1), "cached_attention: row ", i, " sees ", seen,
                " keys, its cache has ", values[i].size(1));
  }
}

KeyCache::KeyCache(int64_t kv_heads, int64_t head_dim, int64_t window)
    : kv_heads_(kv_heads), head_dim_(head_dim), window_(window) {
  TORCH_CHECK(kv_heads > 0 && head_dim > 0 && window >= 0, "KeyCache: ", kv_heads, " heads of width ",
              head_dim, " with a window of ", window);
}

void KeyCache::clear() { length_ = 0; }

// Room for rows like `like` up to number `rows`. The ring's capacity is what any window touches in whole blocks; until it has
// grown to that, nothing has wrapped, so rows stay where they are.
void KeyCache::reserve(const Tensor& like, int64_t rows) {
  if (keys_.defined())
    TORCH_CHECK(like.scalar_type() == dtype_ && like.device() == keys_.device(), "KeyCache: holds ", dtype_,
                " on ", keys_.device(), ", got ", like.scalar_type(), " on ", like.device());
  if (rows <= capacity_) return;
  int64_t wanted = round_up(std::max(rows, 2 * capacity_), kCacheBlock);
  if (window_ > 0) wanted = std::min(wanted, ((window_ + kCacheBlock - 2) / kCacheBlock + 1) * kCacheBlock);
  if (wanted == capacity_) return;
  static const auto memory = schema<CacheMemory>("blt::cache_memory");
  const auto [keys, values] = memory.call(like.detach(), wanted);
  if (keys_.defined()) {
    keys.narrow(1, 0, keys_.size(1)).copy_(keys_);
    values.narrow(1, 0, values_.size(1)).copy_(values_);
  }
  keys_ = keys;
  values_ = values;
  capacity_ = wanted;
  dtype_ = like.scalar_type();
}

void KeyCache::append(const Tensor& k, const Tensor& v) {
  TORCH_CHECK(k.dim() == 3 && k.size(1) == kv_heads_ && k.size(2) == head_dim_ && v.sizes() == k.sizes() &&
                  k.is_floating_point() && v.scalar_type() == k.scalar_type() && v.device() == k.device(),
              "KeyCache::append: k and v must be floating [n, ", kv_heads_, ", ", head_dim_,
              "] on one device, got ", k.scalar_type(), " ", k.sizes(), " on ", k.device(), " and ",
              v.scalar_type(), " ", v.sizes(), " on ", v.device());
  const int64_t rows = k.size(0);
  if (rows == 0) return;
  reserve(k, length_ + rows);
  const int64_t kept = window_ > 0 ? std::min(rows, window_) : rows;
  static const auto op = schema<CacheRows>("blt::cache_rows");
  op.call(k.narrow(0, rows - kept, kept), v.narrow(0, rows - kept, kept), keys_, values_,
          length_ + rows - kept);
  length_ += rows;
}

Tensor cached_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                        const std::vector<KeyCache*>& caches, double scale) {
  TORCH_CHECK(q.dim() == 3 && k.dim() == 3 && q.size(0) == static_cast<int64_t>(caches.size()),
              "cached_attention: q [N, H, E] and k [N, Hkv, E] for N = ", caches.size(), " caches, got ",
              q.sizes(), " and ", k.sizes());
  TORCH_CHECK(!(at::GradMode::is_enabled() && q.requires_grad()),
              "cached_attention: q requires a gradient, but caches are for inference: use a NoGradGuard");
  std::vector<Tensor> keys, values;
  std::vector<int64_t> positions;
  keys.reserve(caches.size());
  values.reserve(caches.size());
  positions.reserve(caches.size());
  for (KeyCache* cache : caches) {
    TORCH_CHECK(cache->window_ == caches.front()->window_ && cache->kv_heads_ == k.size(1) &&
                    cache->head_dim_ == k.size(2),
                "cached_attention: a cache of ", cache->kv_heads_, " heads of width ", cache->head_dim_,
                " and window ", cache->window_, " does not go with k ", k.sizes(), " and window ",
                caches.front()->window_);
    cache->reserve(k, cache->length_ + 1);
    keys.push_back(cache->keys_);
    values.push_back(cache->values_);
    positions.push_back(cache->length_);
  }
  for (size_t i = 0; i < caches.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      TORCH_CHECK(caches[i] != caches[j], "cached_attention: cache ", i, " is given twice");
  static const auto op = schema<Attend>("blt::cached_attention");
  Tensor out = op.call(q, k, v, keys, values, positions, caches.empty() ? 0 : caches.front()->window_, scale);
  for (KeyCache* cache : caches) ++cache->length_;
  return out;
}

}  // namespace blt::ops
