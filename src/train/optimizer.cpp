#include "blt/train/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "blt/base/error.h"
#include "blt/io/safetensors.h"
#include "train/table_name.h"
#include "train/update_rule.h"
#include "train/whole_matrices.h"

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

struct Rates {
  double learning_rate, weight_decay;
};

Rates rates_of(const OptimizerConfig& config, const std::string& name, const at::Tensor& parameter,
               double factor) {
  Rates rates{config.learning_rate * factor, parameter.dim() >= 2 ? config.weight_decay : 0.0};
  if (const ParameterGroup* group = group_of(config.groups, name)) {
    rates.learning_rate *= group->learning_rate_scale;
    rates.weight_decay = group->weight_decay.value_or(rates.weight_decay);
  }
  return rates;
}

// A matrix that multiplies inside the model: neither an embedding nor the output head.
bool is_inner_matrix(const std::string& name, const at::Tensor& parameter) {
  return parameter.dim() == 2 && name.ends_with(".weight") && !name.starts_with("lm_head.");
}

std::string described(at::ScalarType type, at::IntArrayRef sizes) {
  return fmt::format("{} [{}]", c10::toString(type), fmt::join(sizes, ", "));
}

// What to do where the state of a table is not what this run keeps; empty for other tensors.
std::string_view about_table_state(std::string_view tensor) {
  if (!is_table_name(tensor.substr(0, tensor.rfind('.')))) return "";
  return ": a resume keeps train.optimizer.table_moments and table_second_moment as they were; to change "
         "them, start another run with --init";
}

}  // namespace

Optimizer::Optimizer(OptimizerConfig config, Parts parts, int64_t seed)
    : config_(std::move(config)), parts_(std::move(parts)) {
  rules_[RuleKind::kAdamW] = make_adamw(config_, seed);
  rules_[RuleKind::kMuon] = make_muon(config_);
}

Optimizer::~Optimizer() = default;

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
    if (group != nullptr && group->rule == RuleKind::kMuon &&
        (item.value().dim() != 2 || is_table_name(item.key())))
      throw Error(fmt::format("optimizer.groups: muon moves matrices, and {}, which {} matches, is none",
                              item.key(), group->pattern));
    any_left = any_left || item.value().requires_grad();
  }
  for (size_t i = 0; i < groups.size(); ++i)
    if (!used[i])
      throw Error(fmt::format(
          "optimizer.groups: the pattern {} matches no parameter; a checkpoint's {} shows their names",
          groups[i].pattern, "optimizer.safetensors"));
  if (!any_left) throw Error("optimizer.groups: all parameters are frozen: nothing would be trained");
}

void Optimizer::narrow(torch::nn::Module& module) {
  for (auto& item : module.named_parameters()) {
    at::Tensor& parameter = item.value();
    TORCH_CHECK(parameter.scalar_type() == at::kFloat, "Optimizer::narrow: ", item.key(), " is ",
                parameter.scalar_type(), ", not Float");
    const at::Tensor master = parameter.variable_data();
    parameter.set_data(master.to(at::kBFloat16));
    if (!parameter.requires_grad()) continue;
    parameter.set_grad_dtype(at::kFloat);
    const at::Tensor own = part(item.key(), master);
    states_[item.key()].master = own.is_same(master) ? master : own.clone();  // the rest may go
  }
}

at::Tensor Optimizer::part(const std::string& name, const at::Tensor& whole,
                           int64_t elements_of_number) const {
  const auto found = parts_.find(name);
  if (found == parts_.end()) return whole;
  return whole.view({-1}).slice(0, found->second.begin / elements_of_number,
                                found->second.end / elements_of_number);
}

RuleKind Optimizer::rule_kind(const std::string& name, const at::Tensor& parameter) const {
  const ParameterGroup* group = group_of(config_.groups, name);
  return group != nullptr && group->rule    ? *group->rule
         : is_inner_matrix(name, parameter) ? config_.matrices
                                            : RuleKind::kAdamW;
}

const UpdateRule& Optimizer::rule_of(const std::string& name, const at::Tensor& parameter) const {
  return *rules_.at(rule_kind(name, parameter));
}

at::Tensor Optimizer::moved(State& state, const std::string& name, const at::Tensor& parameter,
                            const at::Tensor& own) const {
  at::Tensor target = state.master.defined() ? state.master : own;
  TORCH_CHECK(target.scalar_type() == gradient_type(own), "Optimizer::step: ", name, " is ",
              own.scalar_type(), " and has no float32 master (Optimizer::narrow)");
  if (state.rule == nullptr) {
    state.rule = &rule_of(name, parameter);
    for (const Kept& kept : state.rule->kept(is_table_name(name))) {
      const at::TensorOptions options = target.options().dtype(kept.type(target));
      state.of_rule.push_back(kept.is_by_row ? at::zeros({target.numel() / parameter.size(1)}, options)
                                             : at::zeros_like(target, options));
    }
    state.step = at::zeros({}, target.options().dtype(at::kFloat));
  }
  return target;
}

void Optimizer::step(const Gradients& gradients, const ClipResult& clip, double factor) {
  step(gradients, clip, factor, WholeMatrices());
}

void Optimizer::step(const Gradients& gradients, const ClipResult& clip, double factor,
                     const WholeMatrices& matrices) {
  const at::NoGradGuard no_grad;
  std::map<const UpdateRule*, std::vector<Update>> updates;
  std::vector<at::Tensor> narrow, masters;
  const at::Tensor took_step = 1 - clip.found_inf;
  const auto add = [&](const std::string& name, const at::Tensor& parameter,
                       const at::Tensor& own) -> Update& {
    State& state = states_[name];
    const Rates rates = rates_of(config_, name, parameter, factor);
    at::Tensor target = moved(state, name, parameter, own);
    return updates[state.rule].emplace_back(Update{.name = name,
                                                   .sizes = parameter.sizes(),
                                                   .target = std::move(target),
                                                   .state = state.of_rule,
                                                   .step = state.step.add_(took_step),
                                                   .learning_rate = rates.learning_rate,
                                                   .weight_decay = rates.weight_decay});
  };
  for (const auto& item : gradients.dense) {
    const at::Tensor& own = item.part.defined() ? item.part : item.parameter;
    if (own.numel() == 0) {
      updates[&rule_of(item.name, item.parameter)].push_back(
          {.name = item.name, .sizes = item.parameter.sizes()});
      continue;
    }
    add(item.name, item.parameter, own).gradient = item.gradient;
    if (const at::Tensor& master = states_.at(item.name).master; master.defined()) {
      narrow.push_back(own);
      masters.push_back(master);
    }
  }
  for (const auto& item : gradients.rows) {
    Update& update = add(item.name, item.table, item.part.defined() ? item.part : item.table);
    update.rows = &item.gradient;
    const int64_t columns = item.table.size(1);
    const auto kept = states_.at(item.name).rule->kept(/*of_table=*/true);
    update.target = update.target.view({-1, columns});
    if (states_.at(item.name).master.defined())
      update.rounded = (item.part.defined() ? item.part : item.table).view({-1, columns});
    for (size_t i = 0; i < kept.size(); ++i)
      if (!kept[i].is_by_row) update.state[i] = update.state[i].view({-1, columns});
    if (const auto part = parts_.find(item.name); part != parts_.end())
      update.first_row = part->second.begin / columns;
  }
  // All of them on every rank, in one order: they may have to do with other ranks.
  for (const auto& [kind, rule] : rules_) rule->step(updates[rule.get()], clip, matrices);
  if (!narrow.empty()) at::_foreach_copy_(narrow, masters);
}

at::Tensor Optimizer::master(const std::string& name) const {
  const auto state = states_.find(name);
  return state == states_.end() ? at::Tensor() : state->second.master;
}

int64_t Optimizer::state_bytes(const std::string& name, const at::Tensor& parameter) const {
  int64_t bytes = 0;
  for (const Kept& kept : rule_of(name, parameter).kept(is_table_name(name)))
    bytes += (kept.is_by_row ? parameter.size(0) : parameter.numel()) *
             static_cast<int64_t>(at::elementSize(kept.type(parameter)));
  return bytes;
}

OptimizerState Optimizer::state() const {
  OptimizerState tensors;
  for (const auto& [name, state] : states_) {
    if (state.rule != nullptr) {
      const std::vector<Kept> kept = state.rule->kept(is_table_name(name));
      for (size_t i = 0; i < kept.size(); ++i)
        tensors.push_back({.name = fmt::format("{}.{}", name, kept[i].name),
                           .tensor = state.of_rule[i],
                           .is_by_row = kept[i].is_by_row});
    }
    if (state.step.defined()) tensors.push_back({.name = name + ".step", .tensor = state.step});
    if (state.master.defined()) tensors.push_back({.name = name + ".master", .tensor = state.master});
  }
  return tensors;
}

void save_optimizer(const std::filesystem::path& file, const OptimizerState& state) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const OptimizerTensor& item : state) tensors.emplace_back(item.name, item.tensor);
  write_safetensors(file, tensors);
}

void Optimizer::load(const std::filesystem::path& path, torch::nn::Module& module) {
  const at::NoGradGuard no_grad;
  const SafetensorsFile file(path);
  size_t used = 0;
  // What the file has under that name; undefined where it has nothing.
  const auto find = [&](const std::string& name, at::IntArrayRef sizes, at::ScalarType type) {
    if (file.find(name) == nullptr) return at::Tensor();
    const at::Tensor stored = file.tensor(name);
    if (stored.sizes() != sizes || stored.scalar_type() != type)
      throw Error(fmt::format("{}: {} is {}, and this run has {} there{}", path.string(), name,
                              described(stored.scalar_type(), stored.sizes()), described(type, sizes),
                              about_table_state(name)));
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
    const auto own = [&](const at::Tensor& stored, bool is_by_row = false) {
      if (!stored.defined()) return stored;
      return part(name, stored, is_by_row ? parameter.size(1) : 1)
          .to(parameter.device(), stored.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
    };
    const at::Tensor step = find(name + ".step", {}, at::kFloat),
                     master = find(name + ".master", parameter.sizes(), type);
    State state{.master = own(master)};
    if (step.defined()) {
      state.rule = &rule_of(name, parameter);
      state.step = step.to(parameter.device(), at::kFloat, false, /*copy=*/true);
      for (const Kept& kept : state.rule->kept(is_table_name(name))) {
        const at::Tensor stored =
            find(fmt::format("{}.{}", name, kept.name),
                 kept.is_by_row ? parameter.sizes().slice(0, 1) : parameter.sizes(), kept.type(parameter));
        if (!stored.defined())
          throw Error(
              fmt::format("{}: of {}, {} is missing: it was moved by another rule, or the file is damaged",
                          path.string(), name, kept.name));
        state.of_rule.push_back(own(stored, kept.is_by_row));
      }
    }
    if (master.defined()) restored.emplace_back(parameter, master);
    const auto before = states_.find(name);
    if (before == states_.end() || !before->second.master.defined())
      state.master = at::Tensor();
    else if (!state.master.defined())
      state.master = before->second.master;
    if (state.rule != nullptr || state.master.defined()) states.emplace(name, std::move(state));
  }
  if (used != file.entries().size())
    throw Error(
        fmt::format("{}: is about parameters that this run does not have, or moves by another rule: resume "
                    "with the config of the run",
                    path.string()));
  for (auto& [parameter, master] : restored) parameter.copy_(master);
  states_ = std::move(states);
}

}  // namespace blt
