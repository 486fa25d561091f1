#include "train/tables.h"

#include <utility>

namespace blt {

NgramEmbeddingImpl* table_owner(const torch::nn::Module& module, const at::Tensor& parameter) {
  for (const auto& child : module.modules()) {
    auto* embedding = child->as<NgramEmbeddingImpl>();
    if (embedding != nullptr && embedding->ngram_table.is_same(parameter)) return embedding;
  }
  return nullptr;
}

Tables::Tables(Group& group, torch::nn::Module& module, at::ScalarType wire_type)
    : group_(group), wire_type_(wire_type) {
  for (auto& item : module.named_parameters())
    if (NgramEmbeddingImpl* embedding = table_owner(module, item.value());
        embedding != nullptr && item.value().requires_grad())
      tables_.push_back({.table = {item.key(), item.value()}, .embedding = embedding});
}

void Tables::with_whole(const std::function<void()>& body) {
  if (group_.is_first()) body();
}

RowGradient Tables::take(const Table& table) {
  const RowGradient own = ops::merge(table.embedding->row_gradients);
  table.embedding->row_gradients.clear();
  return own;
}

}  // namespace blt
