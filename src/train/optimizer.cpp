#include "blt/train/optimizer.h"

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <vector>

#include "blt/ops/row_adamw.h"

namespace blt {

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
  struct Group {
    std::vector<at::Tensor> parameters, gradients, exp_avgs, exp_avg_sqs, steps;
  };
  Group decayed, plain;
  const at::Tensor took_step = 1 - clip.found_inf;
  for (const auto& item : gradients.dense) {
    State& state = state_of(item.name, item.parameter);
    Group& group = item.parameter.dim() >= 2 ? decayed : plain;
    group.parameters.push_back(item.parameter);
    group.gradients.push_back(item.gradient);
    group.exp_avgs.push_back(state.exp_avg);
    group.exp_avg_sqs.push_back(state.exp_avg_sq);
    group.steps.push_back(state.step.add_(took_step));
  }
  const double rate = config_.learning_rate * factor;
  const at::Tensor unscale = clip.scale.reciprocal();  // the fused kernel divides by it
  const auto update = [&](Group& group, double decay) {
    if (group.parameters.empty()) return;
    at::_fused_adamw_(group.parameters, group.gradients, group.exp_avgs, group.exp_avg_sqs,
                      /*max_exp_avg_sqs=*/{}, group.steps, rate, config_.beta1, config_.beta2, decay,
                      config_.eps, /*amsgrad=*/false,
                      /*maximize=*/false, unscale, clip.found_inf);
  };
  update(decayed, config_.weight_decay);
  update(plain, 0.0);
  for (const auto& item : gradients.rows) {
    State& state = state_of(item.name, item.table);
    const auto step = static_cast<int64_t>(state.step.add_(took_step).item<float>());
    at::Tensor table = item.table;
    ops::row_adamw_(table, state.exp_avg, state.exp_avg_sq, item.gradient, clip.scale,
                    {rate, config_.beta1, config_.beta2, config_.eps, config_.weight_decay, step});
  }
}

}  // namespace blt
