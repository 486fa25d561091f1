#include "blt/train/trainer.h"

#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/base/signals.h"
#include "blt/eval/bits_per_byte.h"
#include "train/checkpoint.h"
#include "train/progress.h"

namespace blt {
namespace {

std::vector<Batch> take(Stage<Batch>& loader, int64_t count, int64_t step) {
  std::vector<Batch> batches;
  while (static_cast<int64_t>(batches.size()) < count) {
    std::optional<Batch> batch = loader.next();
    if (!batch)
      throw Error(
          fmt::format("step {}: the training data has ended; train for fewer steps or repeat it", step));
    batches.push_back(std::move(*batch));
  }
  return batches;
}

void require_finite(const StepStats& stats, int64_t step) {
  if (stats.clip.found_inf.item<float>() != 0 || !std::isfinite(stats.loss.item<double>()))
    throw Error(fmt::format(
        "step {}: the loss or its gradient is not finite (loss {}); the model was left as it was before "
        "this step. Lower the learning rate or max_grad_norm, or start from an earlier checkpoint",
        step, stats.loss.item<double>()));
}

bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

}  // namespace

Trainer::Trainer(TrainConfig config, TrainerParts parts)
    : config_(std::move(config)), parts_(std::move(parts)), optimizer_(config_.optimizer) {
  parts_.model.module->train();
}

Trainer::Outcome Trainer::run() {
  Progress progress(config_, parts_.output);
  while (step_ < config_.steps) {
    const StepStats stats = train_step();
    // From here on, nothing changes the model.
    require_finite(stats, step_);
    progress.count(stats);
    if (due(step_, config_.log_every) || step_ == config_.steps) progress.log_step(step_, stats);
    if (due(step_, config_.eval_every) || step_ == config_.steps) progress.log_validation(step_, evaluate());
    if (due(step_, config_.checkpoint_every) && step_ < config_.steps) save();
    if (stop_requested() && step_ < config_.steps) {
      save();
      return Outcome::kStopped;
    }
  }
  save();
  return Outcome::kFinished;
}

StepStats Trainer::train_step() {
  const std::vector<Batch> batches = take(*parts_.train, config_.accumulate, step_ + 1);
  StepStats stats;
  int64_t targets = 0;
  for (const Batch& batch : batches) {
    targets += batch.num_targets;
    stats.bytes += batch.num_byte_targets;
  }
  for (const Batch& batch : batches) {
    const LossValue loss = parts_.loss(parts_.model.forward(batch), batch);
    const at::Tensor share = loss.sum / targets;
    share.backward();
    stats.loss = stats.loss.defined() ? stats.loss + share.detach() : share.detach();
    if (loss.byte_nll.defined())
      stats.byte_nll = stats.byte_nll.defined() ? stats.byte_nll + loss.byte_nll : loss.byte_nll;
  }
  const Gradients gradients = take_gradients(*parts_.model.module);
  stats.clip = clip(gradients, config_.max_grad_norm);
  optimizer_.step(gradients, stats.clip, learning_rate_factor(config_.schedule, step_, config_.steps));
  ++step_;
  return stats;
}

double Trainer::evaluate() {
  if (!parts_.valid) return std::numeric_limits<double>::quiet_NaN();
  parts_.model.module->eval();
  const std::unique_ptr<Stage<Batch>> valid = parts_.valid();
  const double result = bits_per_byte(parts_.model.forward, *valid);
  parts_.model.module->train();
  return result;
}

void Trainer::save() {
  if (parts_.save) write_checkpoint(parts_.output, step_, parts_.save);
}

}  // namespace blt
