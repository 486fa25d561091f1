#include "blt/train/trainer.h"

#include <ATen/Context.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
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

// Where the data of a rank is in the trainer's state.
std::string data_key(size_t rank) { return fmt::format("data.{}", rank); }

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

// Dropout of a step depends on nothing that happened before it: there is no state to save. Each rank has its own.
void seed_step(int64_t seed, int64_t step, int64_t rank) {
  const std::string of_rank = rank == 0 ? "" : fmt::format(" of rank {}", rank);
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  const std::lock_guard lock(generator.mutex());
  generator.set_current_seed(
      Rng(static_cast<uint64_t>(seed), fmt::format("step {}{}", step, of_rank)).next());
}

// The trainable parameters are known from here on, so it can be said who moves which.
std::unique_ptr<Parallel> prepare(const TrainConfig& config, TrainerParts& parts,
                                  std::shared_ptr<Group> group) {
  freeze_groups(*parts.model.module, config.optimizer.groups);
  return make_parallel(parts.parallel, std::move(group), *parts.model.module);
}

// What one rank's part of a step gave becomes what all gave.
void add_up(StepStats& stats, bool stop, Group& group) {
  const at::Tensor nll = stats.byte_nll.defined() ? stats.byte_nll : at::zeros_like(stats.loss);
  const at::Tensor totals = at::stack({stats.loss.to(at::kDouble), nll.to(at::kDouble)});
  const std::vector<int64_t> stops = sum_of_counts(group, {stop ? 1 : 0}, "whether to stop");
  group.sum(totals, "loss")->wait();
  stats.loss = totals[0].to(stats.loss.scalar_type());
  if (stats.byte_nll.defined()) stats.byte_nll = totals[1].to(stats.byte_nll.scalar_type());
  stats.stop = stops[0] > 0;
}

void say_saved(const std::filesystem::path& checkpoint) {
  log_info(fmt::format("saved {}", checkpoint.string()));
}

bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

}  // namespace

Trainer::Trainer(TrainConfig config, TrainerParts parts)
    : config_(std::move(config)),
      parts_(std::move(parts)),
      group_(std::make_shared<WatchedGroup>(parts_.group ? parts_.group : make_alone_group())),
      parallel_(prepare(config_, parts_, group_)),
      optimizer_(config_.optimizer, parallel_->parts()),
      writer_(std::make_unique<CheckpointWriter>()) {
  if (config_.compute == Compute::kBfloat16) optimizer_.narrow(*parts_.model.module);
  parts_.model.module->train();
}

Trainer::~Trainer() = default;

Trainer::Outcome Trainer::run() {
  const bool is_first = parallel_->group().is_first();
  Progress progress(config_, parts_, step_, /*is_silent=*/!is_first);
  if (is_first && !parts_.output.empty()) tidy_checkpoints(parts_.output, saved_step_, keep_policy());
  if (step_ >= config_.steps)
    log_info(fmt::format("step {} of {} is done already; ask for more steps to go on", step_, config_.steps));
  bool stopped = false;
  while (step_ < config_.steps && !stopped) {
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
    const bool last = step_ == config_.steps, stop = stats.stop;
    if (last || due(step_, config_.log_every)) progress.log_step(step_, stats, skipped_);
    bool best = false;
    if (last || due(step_, config_.eval_every)) {
      const double bits = evaluate();
      progress.log_validation(step_, bits);
      best = is_best(bits);
    }
    if (const auto saved = writer_->finished()) {
      progress.finish_line();
      say_saved(*saved);
    }
    if (last || best || stop || due(step_, config_.checkpoint_every)) {
      progress.finish_line();
      save();
    }
    stopped = stop && !last;
  }
  progress.finish_line();
  if (const auto saved = writer_->wait()) say_saved(*saved);
  return stopped ? Outcome::kStopped : Outcome::kFinished;
}

StepStats Trainer::train_step() {
  const std::vector<Batch> batches = take(*parts_.train, config_.accumulate, step_ + 1);
  Group& group = parallel_->group();
  seed_step(parts_.seed, step_, group.rank());
  StepStats stats;
  const double waited_before = group_->waited_s();
  for (const Batch& batch : batches) {
    stats.targets += batch.num_targets;
    stats.bytes += batch.num_byte_targets;
  }
  const std::vector<int64_t> counts = sum_of_counts(group, {stats.targets, stats.bytes}, "number of targets");
  stats.targets = counts[0];
  stats.bytes = counts[1];
  for (const Batch& batch : batches) {
    const LossValue loss = parts_.loss(parts_.model.forward(batch), batch);
    const at::Tensor share = loss.sum / stats.targets;
    parallel_->backward(share, /*last=*/&batch == &batches.back());
    stats.loss = stats.loss.defined() ? stats.loss + share.detach() : share.detach();
    if (loss.byte_nll.defined())
      stats.byte_nll = stats.byte_nll.defined() ? stats.byte_nll + loss.byte_nll : loss.byte_nll;
  }
  const Gradients gradients = parallel_->finish_gradients();
  add_up(stats, stop_requested(), group);
  stats.clip = clip(parallel_->norm(gradients), config_.max_grad_norm, stats.loss);
  parallel_->step(optimizer_, gradients, stats.clip,
                  learning_rate_factor(config_.schedule, step_, config_.steps));
  ++step_;
  stats.transfer_wait_s = group_->waited_s() - waited_before;
  return stats;
}

double Trainer::evaluate() {
  if (!parts_.valid) return std::numeric_limits<double>::quiet_NaN();
  parts_.model.module->eval();
  const std::unique_ptr<Stage<Batch>> valid = parts_.valid();
  const ByteNll own = byte_nll(parts_.model.forward, *valid);
  parallel_->finish_forwards();
  parts_.model.module->train();
  const std::vector<double> all = sum_of(
      parallel_->group(), {own.nll_sum, static_cast<double>(own.num_bytes)}, "bits per byte of validation");
  return bits_per_byte(all[0], static_cast<int64_t>(all[1]));
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
  if (const auto saved = writer_->wait()) say_saved(*saved);  // before there are more copies
  StateWriter own;
  parts_.train->save(own);
  const std::vector<std::string> data = gather(parallel_->group(), own.json(), "places in the data");
  OptimizerState optimizer = parallel_->whole_state(optimizer_);
  std::function<void(const std::filesystem::path&)> save_model;
  parallel_->with_whole_parameters([&] { save_model = parts_.save(); });
  saved_step_ = step_;
  if (!parallel_->group().is_first()) return;
  StateWriter state;
  state.put("step", step_);
  state.put("skipped", skipped_);
  state.put("seed", parts_.seed);
  state.put("best_step", best_step_);
  state.put("best_bits_per_byte",
            fmt::format("{}", best_bits_per_byte_));  // the shortest text that reads back equal
  state.put("ranks", parallel_->group().size());
  for (size_t r = 0; r < data.size(); ++r)
    state.put(data_key(r), StateWriter::of(StateReader(data[r], "data")));
  writer_->start([output = parts_.output, step = step_, keep = keep_policy(),
                  save_model = std::move(save_model), optimizer = std::move(optimizer),
                  state = state.json() + "\n"] {
    return write_checkpoint(output, step, keep, [&](const std::filesystem::path& folder) {
      save_model(folder);
      save_optimizer(folder / kOptimizerFile, optimizer);
      write_file(folder / kTrainerStateFile, state);
    });
  });
}

void Trainer::load_data(const StateReader& state) {
  const int64_t ranks = state.integer("ranks");
  const Group& group = parallel_->group();
  if (ranks == group.size()) return parts_.train->load(state.section(data_key(group.rank())));
  if (!parts_.hand_over)
    throw Error(
        fmt::format("the checkpoint is of {} ranks, and its data cannot go on with {}", ranks, group.size()));
  std::vector<StateReader> states;
  for (int64_t r = 0; r < ranks; ++r) states.push_back(state.section(data_key(r)));
  parts_.train->load(StateReader(parts_.hand_over(states), "the data of all ranks"));
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
  load_data(state);
  step_ = state.integer("step");
  skipped_ = state.integer("skipped");
  best_step_ = state.integer("best_step");
  const std::vector<int64_t> steps = sum_of_counts(parallel_->group(), {step_}, "step to go on from");
  if (steps[0] != step_ * parallel_->group().size())
    throw Error(
        fmt::format("{}: is of step {}, but other ranks see another checkpoint: all need the same files",
                    checkpoint.string(), step_));
  // A checkpoint from elsewhere is not one of this run's.
  std::error_code ignored;
  if (std::filesystem::equivalent(checkpoint.parent_path(), parts_.output, ignored)) saved_step_ = step_;
}

}  // namespace blt
