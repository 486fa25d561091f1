#include "blt/train/optimizer.h"

#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <utility>

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

// Rounds the rows of a master that a step may have moved into their table.
void round_rows(const at::Tensor& master, const RowGradient& gradient, bool touched_only, at::Tensor table) {
  if (!touched_only) {
    table.copy_(master);
  } else if (gradient.ids.defined()) {
    const at::Tensor ids = gradient.ids.narrow(0, 0, gradient.count.item<int32_t>()).to(at::kLong);
    table.index_copy_(0, ids, master.index_select(0, ids).to(table.scalar_type()));
  }
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

void AdamW::narrow(torch::nn::Module& module) {
  for (auto& item : module.named_parameters()) {
    at::Tensor& parameter = item.value();
    TORCH_CHECK(parameter.scalar_type() == at::kFloat, "AdamW::narrow: ", item.key(), " is ",
                parameter.scalar_type(), ", not Float");
    const at::Tensor master = parameter.variable_data();
    parameter.set_data(master.to(at::kBFloat16));
    if (!parameter.requires_grad()) continue;
    parameter.set_grad_dtype(at::kFloat);
    const at::Tensor own = part(item.key(), master);
    states_[item.key()].master = own.is_same(master) ? master : own.clone();  // the rest may go
  }
}

at::Tensor AdamW::part(const std::string& name, const at::Tensor& whole) const {
  const auto found = parts_.find(name);
  if (found == parts_.end()) return whole;
  return whole.view({-1}).slice(0, found->second.begin, found->second.end);
}

at::Tensor AdamW::moved(State& state, const std::string& name, const at::Tensor& own) {
  at::Tensor target = state.master.defined() ? state.master : own;
  TORCH_CHECK(target.scalar_type() == gradient_type(own), "AdamW::step: ", name, " is ", own.scalar_type(),
              " and has no float32 master (AdamW::narrow)");
  if (!state.exp_avg.defined()) {
    state.exp_avg = at::zeros_like(target);
    state.exp_avg_sq = at::zeros_like(target);
    state.step = at::zeros({}, target.options().dtype(at::kFloat));
  }
  return target;
}

void AdamW::step(const Gradients& gradients, const ClipResult& clip, double factor) {
  const at::NoGradGuard no_grad;
  struct Tensors {
    std::vector<at::Tensor> parameters, gradients, exp_avgs, exp_avg_sqs, steps;
  };
  std::map<Rates, Tensors> dense;
  std::vector<at::Tensor> narrow, masters;
  const at::Tensor took_step = 1 - clip.found_inf;
  for (const auto& item : gradients.dense) {
    State& state = states_[item.name];
    Tensors& tensors = dense[rates_of(config_, item.name, item.parameter, factor)];
    const at::Tensor& own = item.part.defined() ? item.part : item.parameter;
    tensors.parameters.push_back(moved(state, item.name, own));
    tensors.gradients.push_back(item.gradient);
    tensors.exp_avgs.push_back(state.exp_avg);
    tensors.exp_avg_sqs.push_back(state.exp_avg_sq);
    tensors.steps.push_back(state.step.add_(took_step));
    if (!state.master.defined()) continue;
    narrow.push_back(own);
    masters.push_back(state.master);
  }
  // The fused kernel divides by the scale, and knows it in float32 alone.
  const bool is_wide = clip.scale.scalar_type() == at::kDouble;
  const auto unscale = is_wide ? std::nullopt : std::optional(clip.scale.reciprocal());
  for (auto& [rates, t] : dense) {
    if (is_wide) t.gradients = at::_foreach_mul(t.gradients, clip.scale);
    at::_fused_adamw_(t.parameters, t.gradients, t.exp_avgs, t.exp_avg_sqs, /*max_exp_avg_sqs=*/{}, t.steps,
                      rates.learning_rate, config_.beta1, config_.beta2, rates.weight_decay, config_.eps,
                      /*amsgrad=*/false, /*maximize=*/false, unscale, clip.found_inf);
  }
  if (!narrow.empty()) at::_foreach_copy_(narrow, masters);
  const bool lazy = config_.table_update == TableUpdate::kLazy;
  for (const auto& item : gradients.rows) {
    State& state = states_[item.name];
    const auto rows = [&](const at::Tensor& tensor) { return tensor.view({-1, item.table.size(1)}); };
    const at::Tensor& own = item.part.defined() ? item.part : item.table;
    at::Tensor table = rows(moved(state, item.name, own));
    at::Tensor exp_avg = rows(state.exp_avg), exp_avg_sq = rows(state.exp_avg_sq);
    const auto step = static_cast<int64_t>(state.step.add_(took_step).item<float>());
    const Rates rates = rates_of(config_, item.name, item.table, factor);
    ops::row_adamw_(table, exp_avg, exp_avg_sq, item.gradient, clip.scale.to(table.scalar_type()),
                    {.learning_rate = rates.learning_rate,
                     .beta1 = config_.beta1,
                     .beta2 = config_.beta2,
                     .eps = config_.eps,
                     .weight_decay = rates.weight_decay,
                     .step = std::max<int64_t>(step, 1),  // 0: the first step of all is masked
                     .touched_only = lazy});
    if (state.master.defined()) round_rows(table, item.gradient, lazy, rows(own));
  }
}

OptimizerState AdamW::state() const {
  OptimizerState tensors;
  for (const auto& [name, state] : states_) {
    const std::pair<const char*, at::Tensor> parts[] = {{".exp_avg", state.exp_avg},
                                                        {".exp_avg_sq", state.exp_avg_sq},
                                                        {".step", state.step},
                                                        {".master", state.master}};
    for (const auto& [suffix, tensor] : parts)
      if (tensor.defined()) tensors.emplace_back(name + suffix, tensor);
  }
  return tensors;
}

const std::map<std::string, std::string>& optimizer_metadata() {
  static const std::map<std::string, std::string> metadata = {{"optimizer", "adamw"}};
  return metadata;
}

void save_optimizer(const std::filesystem::path& file, const OptimizerState& state) {
  write_safetensors(file, state, optimizer_metadata());
}

void AdamW::load(const std::filesystem::path& path, torch::nn::Module& module) {
  const at::NoGradGuard no_grad;
  const SafetensorsFile file(path);
  size_t used = 0;
  // What the file has under that name; undefined where it has nothing.
  const auto find = [&](const std::string& name, at::IntArrayRef sizes, at::ScalarType type) {
    if (file.find(name) == nullptr) return at::Tensor();
    const at::Tensor stored = file.tensor(name);
    if (stored.sizes() != sizes || stored.scalar_type() != type)
      throw Error(fmt::format("{}: {} has another shape or dtype than the parameter of this run",
                              path.string(), name));
    ++used;
    return stored;
  };
  std::map<std::string, State> states;
  std::vector<std::pair<at::Tensor, at::Tensor>> restored;  // a parameter and its master
  for (const auto& item : module.named_parameters()) {
    const std::string& name = item.key();
    const at::Tensor& parameter = item.value();
    const at::ScalarType type = gradient_type(parameter);
    // A copy of this optimizer's part.
    const auto own = [&](const at::Tensor& stored) {
      if (!stored.defined()) return stored;
      return part(name, stored).to(parameter.device(), type, /*non_blocking=*/false, /*copy=*/true);
    };
    const at::Tensor step = find(name + ".step", {}, at::kFloat),
                     master = find(name + ".master", parameter.sizes(), type);
    State state{.exp_avg = own(find(name + ".exp_avg", parameter.sizes(), type)),
                .exp_avg_sq = own(find(name + ".exp_avg_sq", parameter.sizes(), type)),
                .step = step.defined() ? step.to(parameter.device(), at::kFloat, false, /*copy=*/true) : step,
                .master = own(master)};
    if (state.exp_avg.defined() != state.exp_avg_sq.defined() ||
        state.exp_avg.defined() != state.step.defined())
      throw Error(
          fmt::format("{}: of {}, some of exp_avg, exp_avg_sq and step are missing", path.string(), name));
    if (master.defined()) restored.emplace_back(parameter, master);
    const auto before = states_.find(name);
    if (before == states_.end() || !before->second.master.defined())
      state.master = at::Tensor();
    else if (!state.master.defined())
      state.master = before->second.master;
    if (state.exp_avg.defined() || state.master.defined()) states.emplace(name, std::move(state));
  }
  if (used != file.entries().size())
    throw Error(
        fmt::format("{}: is about parameters that this run does not have: resume with the config of the run",
                    path.string()));
  for (auto& [parameter, master] : restored) parameter.copy_(master);
  states_ = std::move(states);
}

}  // namespace blt
