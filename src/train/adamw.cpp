#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_fused_adamw.h>

#include <map>
#include <optional>
#include <utility>

#include "blt/ops/row_adamw.h"
#include "train/update_rule.h"

namespace blt {
namespace {

class AdamW : public UpdateRule {
 public:
  AdamW(const OptimizerConfig& config, int64_t seed) : config_(config), seed_(seed) {}

  std::vector<Kept> kept(bool of_table) const override {
    const bool rounds = of_table && config_.table_moments == TableMoments::kBfloat16;
    const bool by_row = of_table && config_.table_second_moment == SecondMoment::kRow;
    return {{.name = "exp_avg", .is_bfloat16 = rounds},
            {.name = "exp_avg_sq", .is_bfloat16 = rounds && !by_row, .is_by_row = by_row}};
  }

  void step(const std::vector<Update>& updates, const ClipResult& clip, const WholeMatrices&) const override {
    struct Tensors {
      std::vector<at::Tensor> targets, gradients, exp_avgs, exp_avg_sqs, steps;
    };
    std::map<std::pair<double, double>, Tensors> dense;  // those with equal rates move in one call
    for (const Update& update : updates) {
      if (!update.target.defined()) continue;
      if (update.rows != nullptr) {
        move_rows(update, clip);
        continue;
      }
      Tensors& tensors = dense[{update.learning_rate, update.weight_decay}];
      tensors.targets.push_back(update.target);
      tensors.gradients.push_back(update.gradient);
      tensors.exp_avgs.push_back(update.state[0]);
      tensors.exp_avg_sqs.push_back(update.state[1]);
      tensors.steps.push_back(update.step);
    }
    // The fused kernel divides by the scale, and knows it in float32 alone.
    const bool is_wide = clip.scale.scalar_type() == at::kDouble;
    const auto unscale = is_wide ? std::nullopt : std::optional(clip.scale.reciprocal());
    for (auto& [rates, t] : dense) {
      if (is_wide) t.gradients = at::_foreach_mul(t.gradients, clip.scale);
      at::_fused_adamw_(t.targets, t.gradients, t.exp_avgs, t.exp_avg_sqs, /*max_exp_avg_sqs=*/{}, t.steps,
                        rates.first, config_.beta1, config_.beta2, rates.second, config_.eps,
                        /*amsgrad=*/false, /*maximize=*/false, unscale, clip.found_inf);
    }
  }

 private:
  void move_rows(const Update& update, const ClipResult& clip) const {
    at::Tensor table = update.target, exp_avg = update.state[0], exp_avg_sq = update.state[1];
    ops::row_adamw_(table, exp_avg, exp_avg_sq, *update.rows, clip.scale.to(table.scalar_type()),
                    {.learning_rate = update.learning_rate,
                     .beta1 = config_.beta1,
                     .beta2 = config_.beta2,
                     .eps = config_.eps,
                     .weight_decay = update.weight_decay,
                     .touched_only = config_.table_update == TableUpdate::kLazy,
                     .seed = seed_,
                     .first_row = update.first_row,
                     .step_on_device = update.step},
                    update.rounded);
  }

  OptimizerConfig config_;
  int64_t seed_;
};

}  // namespace

std::unique_ptr<UpdateRule> make_adamw(const OptimizerConfig& config, int64_t seed) {
  return std::make_unique<AdamW>(config, seed);
}

}  // namespace blt
