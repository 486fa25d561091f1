#include "blt/train/optimizer.h"

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <array>

#include "blt/base/error.h"
#include "blt/io/safetensors.h"
#include "blt/ops/row_adamw.h"

namespace blt {
namespace {

bool matches(const ParameterGroup& group, const std::string& name) {
  return fnmatch(group.pattern.c_str(), name.c_str(), 0) == 0;
}

const ParameterGroup* group_of(const std::vector<ParameterGroup>& groups, const std::string& name) {
  for (const ParameterGroup& group : groups)
    if (matches(group, name)) return &group;
  return nullptr;
}

// What a parameter's update depends on besides its tensors; those with equal ones are updated in one call.
struct Rates {
  double learning_rate, weight_decay;
  bool operator<(const Rates& other) const {
    return std::pair(learning_rate, weight_decay) < std::pair(other.learning_rate, other.weight_decay);
  }
};

Rates rates_of(const AdamWConfig& config, const std::string& name, const at::Tensor& parameter,
               double factor) {
  Rates rates{config.learning_rate * factor, parameter.dim() >= 2 ? config.weight_decay : 0.0};
  if (const ParameterGroup* group = group_of(config.groups, name)) {
    rates.learning_rate *= group->learning_rate_scale;
    rates.weight_decay = group->weight_decay.value_or(rates.weight_decay);
  }
  return rates;
}

}  // namespace

void ParameterGroup::validate(Errors& errors) const {
  if (pattern.empty()) errors.add("pattern", "is missing: name parameters, such as local_decoder.*");
}

void freeze_groups(torch::nn::Module& module, const std::vector<ParameterGroup>& groups) {
  std::vector<bool> used(groups.size(), false);
  bool any_left = false;
  for (auto& item : module.named_parameters()) {
    for (size_t i = 0; i < groups.size(); ++i) used[i] = used[i] || matches(groups[i], item.key());
    const ParameterGroup* group = group_of(groups, item.key());
    if (group != nullptr && group->frozen) item.value().set_requires_grad(false);
    any_left = any_left || item.value().requires_grad();
  }
  for (size_t i = 0; i < groups.size(); ++i)
    if (!used[i])
      throw Error(fmt::format(
          "optimizer.groups: the pattern {} matches no parameter; a checkpoint's {} shows their names",
          groups[i].pattern, "optimizer.safetensors"));
  if (!any_left) throw Error("optimizer.groups: all parameters are frozen: nothing would be trained");
}

AdamW::State& AdamW::state_of(const std::string& name, const at::Tensor& parameter) {
  State& state = states_[name];
  if (!state.exp_avg.defined()) {
    state.exp_avg = at::zeros_like(parameter);
    state.exp_avg_sq = at::zeros_like(parameter);
    state.step = at::zeros({}, parameter.options().dtype(at::kFloat));
  }
  return state;
}

void AdamW::step(const Gradients& gradients, const ClipResult& clip, double factor) {
  const at::NoGradGuard no_grad;
  struct Tensors {
    std::vector<at::Tensor> parameters, gradients, exp_avgs, exp_avg_sqs, steps;
  };
  std::map<Rates, Tensors> dense;
  const at::Tensor took_step = 1 - clip.found_inf;
  for (const auto& item : gradients.dense) {
    State& state = state_of(item.name, item.parameter);
    Tensors& tensors = dense[rates_of(config_, item.name, item.parameter, factor)];
    tensors.parameters.push_back(item.parameter);
    tensors.gradients.push_back(item.gradient);
    tensors.exp_avgs.push_back(state.exp_avg);
    tensors.exp_avg_sqs.push_back(state.exp_avg_sq);
    tensors.steps.push_back(state.step.add_(took_step));
  }
  const at::Tensor unscale = clip.scale.reciprocal();  // the fused kernel divides by it
  for (auto& [rates, t] : dense)
    at::_fused_adamw_(t.parameters, t.gradients, t.exp_avgs, t.exp_avg_sqs, /*max_exp_avg_sqs=*/{}, t.steps,
                      rates.learning_rate, config_.beta1, config_.beta2, rates.weight_decay, config_.eps,
                      /*amsgrad=*/false, /*maximize=*/false, unscale, clip.found_inf);
  for (const auto& item : gradients.rows) {
    State& state = state_of(item.name, item.table);
    const auto step = static_cast<int64_t>(state.step.add_(took_step).item<float>());
    const Rates rates = rates_of(config_, item.name, item.table, factor);
    at::Tensor table = item.table;
    ops::row_adamw_(table, state.exp_avg, state.exp_avg_sq, item.gradient, clip.scale,
                    {.learning_rate = rates.learning_rate,
                     .beta1 = config_.beta1,
                     .beta2 = config_.beta2,
                     .eps = config_.eps,
                     .weight_decay = rates.weight_decay,
                     .step = std::max<int64_t>(step, 1),  // 0: the first step of all is masked
                     .touched_only = config_.table_update == TableUpdate::kLazy});
  }
}

void AdamW::save(const std::filesystem::path& file) const {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& [name, state] : states_) {
    tensors.emplace_back(name + ".exp_avg", state.exp_avg);
    tensors.emplace_back(name + ".exp_avg_sq", state.exp_avg_sq);
    tensors.emplace_back(name + ".step", state.step);
  }
  write_safetensors(file, tensors, {{"optimizer", "adamw"}});
}

void AdamW::load(const std::filesystem::path& path, const torch::nn::Module& module) {
  const SafetensorsFile file(path);
  std::map<std::string, State> states;
  size_t used = 0;
  for (const auto& item : module.named_parameters()) {
    State state;
    const std::array<std::pair<const char*, at::Tensor*>, 3> parts = {
        {{".exp_avg", &state.exp_avg}, {".exp_avg_sq", &state.exp_avg_sq}, {".step", &state.step}}};
    if (file.find(item.key() + parts[0].first) == nullptr) continue;  // never took a step
    for (const auto& [suffix, tensor] : parts) {
      const at::Tensor stored = file.tensor(item.key() + suffix);
      const at::IntArrayRef wanted = tensor == &state.step ? at::IntArrayRef() : item.value().sizes();
      if (stored.sizes() != wanted || stored.scalar_type() != at::kFloat)
        throw Error(fmt::format("{}: {}{} has another shape or dtype than the parameter of this run",
                                path.string(), item.key(), suffix));
      *tensor = stored.to(item.value().device(), /*non_blocking=*/false, /*copy=*/true);
      ++used;
    }
    states.emplace(item.key(), std::move(state));
  }
  if (used != file.entries().size())
    throw Error(
        fmt::format("{}: is about parameters that this run does not have: resume with the config of the run",
                    path.string()));
  states_ = std::move(states);
}

}  // namespace blt
