#include "blt/train/trainer.h"

#include <ATen/Context.h>
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/base/log.h"
#include "blt/base/rng.h"
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

bool is_finite(const StepStats& stats) { return stats.clip.found_inf.item<float>() == 0; }

// Dropout of a step depends on nothing that happened before it: there is no state to save.
void seed_step(int64_t seed, int64_t step) {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  const std::lock_guard lock(generator.mutex());
  generator.set_current_seed(Rng(static_cast<uint64_t>(seed), fmt::format("step {}", step)).next());
}

bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

}  // namespace

Trainer::Trainer(TrainConfig config, TrainerParts parts)
    : config_(std::move(config)), parts_(std::move(parts)), optimizer_(config_.optimizer) {
  freeze_groups(*parts_.model.module, config_.optimizer.groups);
  if (config_.compute == Compute::kBfloat16) optimizer_.narrow(*parts_.model.module);
  parts_.model.module->train();
}

Trainer::Outcome Trainer::run() {
  Progress progress(config_, parts_, step_);
  if (!parts_.output.empty()) tidy_checkpoints(parts_.output, saved_step_, keep_policy());
  if (step_ >= config_.steps)
    log_info(fmt::format("step {} of {} is done already; ask for more steps to go on", step_, config_.steps));
  while (step_ < config_.steps) {
    const StepStats stats = train_step();
    // From here on, nothing changes the model.
    if (is_finite(stats)) {
      progress.count(stats);
    } else {
      if (config_.on_nonfinite == OnNonfinite::kStop)
        throw Error(fmt::format(
            "step {}: the loss or its gradient is not finite (loss {}); the model was left as it was before "
            "this step. Lower the learning rate or max_grad_norm, start from an earlier checkpoint, or set "
            "on_nonfinite to skip",
            step_, stats.loss.item<double>()));
      ++skipped_;
    }
    const bool last = step_ == config_.steps, stop = stop_requested();
    if (last || due(step_, config_.log_every)) progress.log_step(step_, stats, skipped_);
    bool best = false;
    if (last || due(step_, config_.eval_every)) {
      const double bits = evaluate();
      progress.log_validation(step_, bits);
      best = is_best(bits);
    }
    if (last || best || stop || due(step_, config_.checkpoint_every)) {
      progress.finish_line();
      save();
    }
    if (stop && !last) return Outcome::kStopped;
  }
  return Outcome::kFinished;
}

StepStats Trainer::train_step() {
  const std::vector<Batch> batches = take(*parts_.train, config_.accumulate, step_ + 1);
  seed_step(parts_.seed, step_);
  StepStats stats;
  for (const Batch& batch : batches) {
    stats.targets += batch.num_targets;
    stats.bytes += batch.num_byte_targets;
  }
  for (const Batch& batch : batches) {
    const LossValue loss = parts_.loss(parts_.model.forward(batch), batch);
    const at::Tensor share = loss.sum / stats.targets;
    share.backward();
    stats.loss = stats.loss.defined() ? stats.loss + share.detach() : share.detach();
    if (loss.byte_nll.defined())
      stats.byte_nll = stats.byte_nll.defined() ? stats.byte_nll + loss.byte_nll : loss.byte_nll;
  }
  const Gradients gradients = take_gradients(*parts_.model.module);
  stats.clip = clip(gradients, config_.max_grad_norm, stats.loss);
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

bool Trainer::is_best(double bits_per_byte) {
  if (std::isnan(bits_per_byte) || (best_step_ > 0 && bits_per_byte >= best_bits_per_byte_)) return false;
  best_step_ = step_;
  best_bits_per_byte_ = bits_per_byte;
  return true;
}

KeepPolicy Trainer::keep_policy() const {
  return {.newest = config_.keep_checkpoints, .best_step = best_step_};
}

void Trainer::save() {
  if (!parts_.save || parts_.output.empty() || saved_step_ == step_) return;
  write_checkpoint(parts_.output, step_, keep_policy(), [this](const std::filesystem::path& folder) {
    parts_.save(folder);
    optimizer_.save(folder / kOptimizerFile);
    StateWriter state;
    state.put("step", step_);
    state.put("skipped", skipped_);
    state.put("seed", parts_.seed);
    state.put("best_step", best_step_);
    state.put("best_bits_per_byte",
              fmt::format("{}", best_bits_per_byte_));  // the shortest text that reads back equal
    StateWriter data = state.section("data");
    parts_.train->save(data);
    write_file(folder / kTrainerStateFile, state.json() + "\n");
  });
  saved_step_ = step_;
}

void Trainer::resume(const std::filesystem::path& checkpoint) {
  const std::filesystem::path file = checkpoint / kTrainerStateFile;
  const StateReader state(read_file(file), file.string());
  if (state.integer("seed") != parts_.seed)
    throw Error(
        fmt::format("{}: is of a run with another seed: resume with the config of the run", file.string()));
  const std::string best = state.text("best_bits_per_byte");
  const auto [end, error] = std::from_chars(best.data(), best.data() + best.size(), best_bits_per_byte_);
  if (error != std::errc() || end != best.data() + best.size())
    throw Error(fmt::format("{}: best_bits_per_byte is no number: {}", file.string(), best));
  optimizer_.load(checkpoint / kOptimizerFile, *parts_.model.module);
  parts_.train->load(state.section("data"));
  step_ = state.integer("step");
  skipped_ = state.integer("skipped");
  best_step_ = state.integer("best_step");
  // A checkpoint from elsewhere is not one of this run's.
  std::error_code ignored;
  if (std::filesystem::equivalent(checkpoint.parent_path(), parts_.output, ignored)) saved_step_ = step_;
}

}  // namespace blt
