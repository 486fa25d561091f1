// cached_attention on CUDA: tensors to pointers.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <vector>

#include "ops/cached_attention/check.h"
#include "ops/cached_attention/cuda_kernel.h"
#include "ops/cached_attention/cuda_spans.h"
#include "ops/cuda/glue.h"
#include "ops/cuda/head_packs.h"

namespace blt::ops::BLT_DEVICE {
namespace {

using at::Tensor;

static_assert(kCacheBlock % kSpan == 0, "a span of keys must not wrap around the end of a cache");

// Rows as they came, a head's after each other.
CacheLayout layout(const Tensor& rows, int64_t capacity) {
  const std::vector<int64_t> sizes = {rows.size(1), capacity, whole_packs(rows)};
  return {rows.scalar_type(), sizes, sizes};
}

std::tuple<Tensor, Tensor> memory(const Tensor& rows, int64_t capacity) {
  check_cache_memory(rows, capacity);
  check_head_width("cache_memory", rows);
  storage_of("cache_memory", rows);
  const CacheLayout own = layout(rows, capacity);
  return {at::empty(own.keys, rows.options()), at::empty(own.values, rows.options())};
}

Cache cache(const Tensor& keys, const Tensor& values, int64_t position) {
  return {keys.mutable_data_ptr(), values.mutable_data_ptr(), values.size(1), position};
}

void cache_rows(const Tensor& k, const Tensor& v, const Tensor& keys, const Tensor& values,
                int64_t position) {
  check_cache_rows(k, v, keys, values, position, layout);
  check_head_width("cache_rows", k);
  const Storage storage = storage_of("cache_rows", k);
  if (k.numel() == 0) return;
  const OnDevice device(k);
  const Tensor k_ = in_packs(k), v_ = in_packs(v);
  launch_cache_rows(storage,
                    {k_.const_data_ptr(), v_.const_data_ptr(), cache(keys, values, position), k_.size(0),
                     k_.size(1), k_.size(2)},
                    device.stream());
}

Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, at::TensorList keys, at::TensorList values,
              at::IntArrayRef positions, int64_t window, double scale) {
  check_cached_attention(q, k, v, keys, values, positions, window, layout);
  check_head_width("cached_attention", q);
  const Storage storage = storage_of("cached_attention", q);
  if (k.numel() == 0) return at::empty_like(q, at::MemoryFormat::Contiguous);
  const OnDevice device(q);
  const Tensor q_ = in_packs(q), k_ = in_packs(k), v_ = in_packs(v);
  std::vector<Cache> caches;
  int64_t spans = 1;
  for (size_t i = 0; i < positions.size(); ++i) {
    caches.push_back(cache(keys[i], values[i], positions[i]));
    spans = std::max(spans, count_spans(positions[i], window));
  }
  const int64_t sequences = q_.size(0), heads = q_.size(1), width = q_.size(2);
  const Tensor out = at::empty(q_.sizes(), q_.options());
  Tensor totals, ends;
  if (spans > 1) {
    const auto floats = q_.options().dtype(at::kFloat);
    totals = at::empty({sequences, heads, spans, width}, floats);
    ends = at::empty({sequences, heads, spans, 2}, floats);
  }
  const auto scratch = [](const Tensor& x) { return x.defined() ? x.data_ptr<float>() : nullptr; };
  launch_cached_attention(
      storage,
      {q_.const_data_ptr(), k_.const_data_ptr(), v_.const_data_ptr(), out.mutable_data_ptr(), scratch(totals),
       scratch(ends), sequences, heads, k_.size(1), width, spans, window, static_cast<float>(scale)},
      caches.data(), device.stream());
  return without_padding(out, q.size(2));
}

BLT_CUDA_KERNELS(m) {
  m.impl("cache_memory", memory);
  m.impl("cache_rows", cache_rows);
  m.impl("cached_attention", attend);
}

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
