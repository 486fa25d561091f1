#include "train/ema.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/lerp.h>

#include <algorithm>

namespace blt {

Ema::Ema(const EmaConfig& config, const torch::nn::Module& model, torch::nn::Module& average)
    : decay_(config.decay) {
  const at::NoGradGuard no_grad;
  const auto parameters = model.named_parameters();
  for (auto& item : average.named_parameters()) {
    const at::Tensor& parameter = parameters[item.key()];
    const bool is_table = item.key().ends_with("ngram_table");
    if (parameter.requires_grad() && (config.tables || !is_table)) {
      item.value().copy_(parameter);
      pairs_.emplace_back(parameter, item.value());
    } else {
      item.value().set_data(parameter.detach());
    }
  }
}

void Ema::step(int64_t step, const at::Tensor& found_inf) {
  const at::NoGradGuard no_grad;
  const double t = static_cast<double>(step), decay = std::min(decay_, (1 + t) / (10 + t));
  const at::Tensor weight = (1 - decay) * (1 - found_inf);  // [] on the device
  for (auto& [parameter, average] : pairs_) average.lerp_(parameter.to(at::kFloat), weight);
}

}  // namespace blt
