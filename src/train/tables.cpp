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

Tables::Tables(Group& group, torch::nn::Module& module, WireType wire) : group_(group), wire_(wire) {
  for (auto& item : module.named_parameters())
    if (NgramEmbeddingImpl* embedding = table_owner(module, item.value());
        embedding != nullptr && item.value().requires_grad())
      tables_.push_back({.table = {item.key(), item.value()}, .embedding = embedding});
}

void Tables::with_whole(const std::function<void()>& body) {
  if (group_.is_first()) body();
}

at::ScalarType Tables::wire_type(const Table& table) const {
  return wire_ == WireType::kBfloat16 ? at::kBFloat16 : sum_type(table);
}

at::ScalarType Tables::sum_type(const Table& table) {
  return table.table.parameter.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

RowGradient Tables::take(const Table& table) {
  const RowGradient own = ops::merge(table.embedding->row_gradients);
  table.embedding->row_gradients.clear();
  return own;
}

}  // namespace blt
