#include "generate/sequence_state.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "blt/ops/window_attention.h"

namespace blt {

StackCaches make_caches(const TransformerConfig& config, int64_t dim, int64_t window) {
  StackCaches caches;
  for (int64_t i = 0; i < config.layers; ++i)
    caches.emplace_back(config.num_kv_heads(), dim / config.heads, window);
  return caches;
}

void RowBuffer::append(const at::Tensor& rows) {
  const int64_t count = count_ + rows.size(0);
  if (!memory_.defined() || count > memory_.size(0)) {
    const at::Tensor larger = at::empty({std::max<int64_t>(count, 2 * count_), rows.size(1)}, rows.options());
    if (count_ > 0) larger.narrow(0, 0, count_).copy_(this->rows());
    memory_ = larger;
  }
  memory_.narrow(0, count_, rows.size(0)).copy_(rows);
  count_ = count;
}

at::Tensor KeepRows::attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionContext& context, double scale) {
  for (const Kept& kept : kept_)
    (*kept.caches)[layer].append(k.slice(0, kept.first, kept.last), v.slice(0, kept.first, kept.last));
  return ops::window_attention(q, k, v, context.documents, context.window, scale);
}

at::Tensor NextRows::attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionContext&, double scale) {
  std::vector<ops::KeyCache*> caches;
  caches.reserve(caches_.size());
  for (StackCaches* sequence : caches_) caches.push_back(&(*sequence)[layer]);
  return ops::cached_attention(q, k, v, caches, scale);
}

}  // namespace blt
