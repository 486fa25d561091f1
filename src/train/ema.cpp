#include "train/ema.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/lerp.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/io/safetensors.h"
#include "train/checkpoint.h"
#include "train/table_name.h"

namespace blt {
namespace {

// The names of parameters in model.safetensors.
std::map<const c10::TensorImpl*, std::string> names_in_file(const ModelToSave& model) {
  std::map<const c10::TensorImpl*, std::string> names;
  for (const auto& [name, tensor] : model.tensors) names[tensor.unsafeGetTensorImpl()] = name;
  return names;
}

}  // namespace

Ema::Ema(const EmaConfig& config, const torch::nn::Module& model, Parallel& parallel,
         const Optimizer& optimizer)
    : config_(config), model_(model), parallel_(parallel), optimizer_(optimizer) {
  const auto parameters = model.named_parameters();
  for (const auto& [name, own] : parallel.own_parameters())
    if (is_averaged(name, parameters[name]))
      averages_[name] = moved(name, own).to(gradient_type(own), /*non_blocking=*/false, /*copy=*/true);
}

at::Tensor Ema::moved(const std::string& name, const at::Tensor& own) const {
  const at::Tensor master = optimizer_.master(name);
  return master.defined() ? master.view(own.sizes()) : own;
}

bool Ema::is_averaged(const std::string& name, const at::Tensor& parameter) const {
  return parameter.requires_grad() && (config_.tables || !is_table_name(name));
}

void Ema::step(int64_t step, const at::Tensor& found_inf) {
  const at::NoGradGuard no_grad;
  const double t = static_cast<double>(step), decay = std::min(config_.decay, (1 + t) / (10 + t));
  const at::Tensor weight = (1 - found_inf) * (1 - decay);  // [] on the device
  for (const auto& [name, own] : parallel_.own_parameters())
    if (const auto found = averages_.find(name); found != averages_.end()) {
      at::Tensor& average = found->second;
      average.lerp_(moved(name, own).to(average.scalar_type()), weight.to(average.scalar_type()));
    }
}

TensorShares Ema::shares(const ModelToSave& model) const {
  const Group& group = parallel_.group();
  std::map<std::string, at::Tensor> own = parallel_.own_parameters();
  for (const auto& [name, average] : averages_) own[name] = average;
  return model_shares(kEmaModelFile, model.tensors, own, parallel_.parts(), model_, group.rank(),
                      group.size());
}

void Ema::load(const std::filesystem::path& folder, const ModelToSave& model) {
  const at::NoGradGuard no_grad;
  const SafetensorsFile file(folder / kModelFile);
  const auto names = names_in_file(model);
  const Parts parts = parallel_.parts();
  const auto parameters = model_.named_parameters();
  for (auto& [parameter, average] : averages_) {
    const at::Tensor& whole = parameters[parameter];
    const auto name = names.find(whole.unsafeGetTensorImpl());
    TORCH_CHECK(name != names.end(), "the model to save lacks ", parameter, ", which is averaged");
    if (file.find(name->second) == nullptr)
      throw Error(fmt::format("{}: {} is missing: the average is of another model",
                              (folder / kModelFile).string(), name->second));
    at::Tensor stored = file.tensor(name->second);
    if (stored.sizes() != whole.sizes())
      throw Error(fmt::format("{}: {} has another shape than the parameter of this run",
                              (folder / kModelFile).string(), name->second));
    if (const auto part = parts.find(parameter); part != parts.end())
      stored = stored.reshape({-1}).slice(0, part->second.begin, part->second.end);
    average.copy_(stored);
  }
}

}  // namespace blt
