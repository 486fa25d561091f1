#include "blt/train/gradients.h"

#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdint>
#include <set>

#include "blt/model/ngram_embedding.h"
#include "model/sent.h"
#include "train/table_name.h"

namespace blt {
namespace {

constexpr const char* kTables = "ngram_tables";

std::set<std::string> table_names(const torch::nn::Module& module) {
  std::set<std::string> names;
  for (const auto& item : module.named_modules())
    if (item.value()->as<NgramEmbeddingImpl>() != nullptr) names.insert(table_name(item.key()));
  return names;
}

// The module right below the model that a parameter is in: local_encoder.
std::string module_of(const std::string& parameter) { return parameter.substr(0, parameter.find('.')); }

// The norm of each dense gradient, in one pass, then of each table's rows.
std::vector<at::Tensor> tensor_norms(const Gradients& gradients) {
  std::vector<at::Tensor> tensors, norms;
  for (const auto& item : gradients.dense) tensors.push_back(item.gradient);
  if (!tensors.empty()) norms = at::_foreach_norm(tensors);
  for (const auto& item : gradients.rows) norms.push_back(ops::norm(item.gradient));
  return norms;
}

}  // namespace

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
    result.rows.push_back(
        {table_name(item.key()), embedding->ngram_table, ops::merge(embedding->row_gradients)});
    embedding->row_gradients.clear();
  }
  return result;
}

at::Tensor norm(const Gradients& gradients) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> norms = tensor_norms(gradients);
  if (norms.empty()) return at::zeros({});
  const at::Tensor total = at::stack(norms).norm();
  return total.to(gradient_type(total));
}

std::vector<std::string> gradient_modules(const torch::nn::Module& module) {
  const std::set<std::string> tables = table_names(module);
  std::vector<std::string> modules;
  bool has_tables = false;
  for (const auto& item : module.named_parameters()) {
    if (!item.value().requires_grad()) continue;
    if (tables.count(item.key()) != 0)
      has_tables = true;
    else if (const std::string name = module_of(item.key()); modules.empty() || modules.back() != name)
      modules.push_back(name);
  }
  if (has_tables) modules.emplace_back(kTables);
  return modules;
}

at::Tensor squared_norms(const Gradients& gradients, std::span<const std::string> modules) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> norms = tensor_norms(gradients);
  std::vector<int64_t> places;
  const auto add_place = [&](const std::string& module, const std::string& parameter) {
    const auto found = std::find(modules.begin(), modules.end(), module);
    TORCH_CHECK(found != modules.end(), "squared_norms: ", parameter, " belongs to none of the modules");
    places.push_back(found - modules.begin());
  };
  for (const auto& item : gradients.dense) add_place(module_of(item.name), item.name);
  for (const auto& item : gradients.rows) add_place(kTables, item.name);
  const auto count = static_cast<int64_t>(modules.size());
  if (norms.empty()) return at::zeros({count}, at::kDouble);
  const at::Tensor squares = at::stack(norms).to(at::kDouble).square();
  const at::Tensor own = sent(at::tensor(places), squares.device());  // [gradients]: its module
  const at::Tensor elsewhere = at::arange(count, own.options()).unsqueeze(1) != own;
  return squares.expand({count, -1}).masked_fill(elsewhere, 0).sum(1);
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
