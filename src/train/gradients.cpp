#include "blt/train/gradients.h"

#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "blt/model/ngram_embedding.h"

namespace blt {

at::ScalarType gradient_type(const at::Tensor& parameter) {
  return parameter.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

Gradients take_gradients(torch::nn::Module& module) {
  Gradients result;
  for (auto& item : module.named_parameters()) {
    at::Tensor& parameter = item.value();
    if (!parameter.grad().defined()) continue;
    result.dense.push_back({item.key(), parameter, parameter.grad()});
    parameter.mutable_grad() = at::Tensor();
  }
  for (auto& item : module.named_modules()) {
    auto* embedding = item.value()->as<NgramEmbeddingImpl>();
    if (embedding == nullptr || embedding->row_gradients.empty()) continue;
    const std::string name = item.key().empty() ? "ngram_table" : item.key() + ".ngram_table";
    result.rows.push_back({name, embedding->ngram_table, ops::merge(embedding->row_gradients)});
    embedding->row_gradients.clear();
  }
  return result;
}

at::Tensor norm(const Gradients& gradients) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> tensors;
  for (const auto& item : gradients.dense) tensors.push_back(item.gradient);
  for (const auto& item : gradients.rows) tensors.push_back(item.gradient.values);
  if (tensors.empty()) return at::zeros({});
  const at::Tensor total = at::stack(at::_foreach_norm(tensors)).norm();
  return total.to(gradient_type(total));
}

ClipResult clip(const at::Tensor& norm, double max_norm, const at::Tensor& loss) {
  const at::NoGradGuard no_grad;
  ClipResult result;
  result.norm = norm;
  // x * 0 is NaN for NaN and infinity: the scale carries them, and a masked update needs no look at the
  // device.
  const at::Tensor one = at::ones({}, norm.options());
  result.scale = max_norm > 0 ? one.minimum(max_norm / (norm + 1e-6)) : one;
  const at::Tensor witness = loss.defined() ? norm * 0 + loss.to(norm.scalar_type()) * 0 : norm * 0;
  result.scale = result.scale + witness;
  result.found_inf = witness.isfinite().logical_not().to(at::kFloat);
  return result;
}

}  // namespace blt
