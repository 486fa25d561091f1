// cached_attention on the CPU: tensors to pointers, sequences and heads to threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "ops/cached_attention/check.h"
#include "ops/cached_attention/cpu_kernel.h"
#include "ops/cpu/kernel_type.h"
#include "ops/cpu/tasks.h"
#include "ops/window_attention/cpu_kernel.h"

namespace blt::ops {
namespace {

using at::Tensor;

static_assert(kCacheBlock % kAttentionKeys == 0, "a block of keys must not wrap around the end of a cache");

template <class T>
CachedSequence<T> sequence(const Tensor& keys, const Tensor& values, int64_t position) {
  return {keys.data_ptr<T>(), values.data_ptr<T>(), values.size(1), position};
}

// Zeros: products go over whole panels and vectors.
std::tuple<Tensor, Tensor> memory(const Tensor& rows, int64_t capacity) {
  check_cache_memory(rows, capacity);
  const CacheLayout layout = panel_layout(rows, capacity);
  const auto options = rows.options().dtype(layout.dtype);
  return {at::zeros(layout.keys, options), at::zeros(layout.values, options)};
}

void cache_rows(const Tensor& k, const Tensor& v, const Tensor& keys, const Tensor& values,
                int64_t position) {
  check_cache_rows(k, v, keys, values, position, panel_layout);
  const at::ScalarType dtype = kernel_type(k);
  const Tensor k_ = ready(k, dtype), v_ = ready(v, dtype);
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const CachedAttention<T> rows{nullptr,
                                  k_.const_data_ptr<T>(),
                                  v_.const_data_ptr<T>(),
                                  nullptr,
                                  nullptr,
                                  k.size(1),
                                  k.size(1),
                                  k.size(2),
                                  values.size(2),
                                  0,
                                  0};
    BLT_KERNEL(cache_rows<T>)(rows, k.size(0), sequence<T>(keys, values, position));
  });
}

// Multiplications of one kv head of a sequence, about.
int64_t cost(const Tensor& q, const Tensor& k, int64_t position, int64_t window) {
  const int64_t seen = window > 0 ? std::min(window, position + 1) : position + 1;
  return 2 * seen * k.size(2) * (q.size(1) / k.size(1));
}

Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, at::TensorList keys, at::TensorList values,
              at::IntArrayRef positions, int64_t window, double scale) {
  check_cached_attention(q, k, v, keys, values, positions, window, panel_layout);
  const at::ScalarType dtype = kernel_type(q);
  const Tensor q_ = ready(q, dtype), k_ = ready(k, dtype), v_ = ready(v, dtype);
  const Tensor out = at::empty(q.sizes(), q_.options());
  const int64_t units = k.numel() == 0 ? 0 : k.size(0) * k.size(1);
  if (units == 0) return out.to(q.scalar_type());
  int64_t work = 0;
  for (const int64_t position : positions) work += k.size(1) * cost(q, k, position, window);
  constexpr int64_t kGrain = 1 << 16;  // multiplications that are worth handing to a thread
  const int64_t tasks = std::clamp<int64_t>(work / kGrain, 1, units);
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    std::vector<CachedSequence<T>> sequences;
    for (size_t i = 0; i < keys.size(); ++i)
      sequences.push_back(sequence<T>(keys[i], values[i], positions[i]));
    const int64_t wide = values[0].size(2);
    const CachedAttention<T> a{q_.const_data_ptr<T>(),
                               k_.const_data_ptr<T>(),
                               v_.const_data_ptr<T>(),
                               out.data_ptr<T>(),
                               sequences.data(),
                               q.size(1),
                               k.size(1),
                               k.size(2),
                               wide,
                               window,
                               static_cast<T>(scale)};
    const auto kernel = BLT_KERNEL(cached_attention<T>);
    run_tasks<T>(tasks, kAttentionKeys + wide + a.width, [&](int64_t task, T* scratch) {
      kernel(a, task * units / tasks, (task + 1) * units / tasks, scratch);
    });
  });
  return out.to(q.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(blt, CPU, m) {
  m.impl("cache_memory", memory);
  m.impl("cache_rows", cache_rows);
  m.impl("cached_attention", attend);
}

}  // namespace blt::ops
