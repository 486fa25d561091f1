#include "blt/train/trainer.h"

#include <ATen/Context.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/seconds_since.h"
#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/base/log.h"
#include "blt/base/rng.h"
#include "blt/base/signals.h"
#include "blt/eval/bits_per_byte.h"
#include "blt/model/traced.h"
#include "blt/model/transformer.h"
#include "model/device_mark.h"
#include "model/trace_range.h"
#include "train/checkpoint.h"
#include "train/ema.h"
#include "train/progress.h"
#include "train/recorded_pass.h"
#include "train/run_checkpoints.h"
#include "train/step_batches.h"
#include "train/step_looks.h"
#include "train/step_profiler.h"
#include "train/tensor_share.h"
#include "train/validation_batches.h"

namespace blt {

namespace {

// Where the data of a rank is in the trainer's state.
std::string data_key(size_t rank) { return fmt::format("data.{}", rank); }

// A trainer's state with all ranks' places in the data.
std::string with_places(StateWriter state, const std::vector<std::string>& places) {
  state.put("ranks", static_cast<int64_t>(places.size()));
  for (size_t r = 0; r < places.size(); ++r)
    state.put(data_key(r), StateWriter::of(StateReader(places[r], "data")));
  return state.json() + "\n";
}

// Dropout of a step depends on nothing that happened before it: there is no state to save. Each rank has its own.
void seed_step(int64_t seed, int64_t step, int64_t rank, at::Device device) {
  const std::string of_rank = rank == 0 ? "" : fmt::format(" of rank {}", rank);
  const uint64_t number = Rng(static_cast<uint64_t>(seed), fmt::format("step {}{}", step, of_rank)).next();
  const auto set = [&](at::Device where) {
    at::Generator generator = at::globalContext().defaultGenerator(where);
    const std::lock_guard lock(generator.mutex());
    generator.set_current_seed(number);
  };
  set(at::kCPU);  // modules of libblt take their seeds from there, on any device
  if (device.is_cuda()) set(device);
}

// The trainable parameters are known from here on, so it can be said who moves which.
std::unique_ptr<Parallel> prepare(const TrainConfig& config, TrainerParts& parts,
                                  std::shared_ptr<Group> group) {
  freeze_groups(*parts.model.module, config.optimizer.groups);
  recompute_layers(*parts.model.module, config.recompute);
  return make_parallel(parts.parallel, std::move(group), *parts.model.module);
}

// What one rank's part of a step gave becomes what all gave. stats.stop, stats.data_failed: of this rank.
void add_up(StepStats& stats, Group& group) {
  const at::Tensor nll = stats.byte_nll.defined() ? stats.byte_nll : at::zeros_like(stats.loss);
  const at::Tensor totals = at::stack({stats.loss.to(at::kDouble), nll.to(at::kDouble)});
  const std::vector<int64_t> ends =
      sum_of_counts(group, {stats.stop ? 1 : 0, stats.data_failed ? 1 : 0}, "whether to stop");
  group.sum(totals, "loss")->wait();
  stats.loss = totals[0].to(stats.loss.scalar_type());
  if (stats.byte_nll.defined()) stats.byte_nll = totals[1].to(stats.byte_nll.scalar_type());
  stats.stop = ends[0] > 0;
  stats.data_failed = ends[1] > 0;
}

// Where a model's parameters are.
at::Device device_of(const torch::nn::Module& module) {
  const std::vector<at::Tensor> parameters = module.parameters();
  return parameters.empty() ? at::Device(at::kCPU) : parameters[0].device();
}

// Why ranks cannot go on, where some have failed, each with its own text (empty: it has not); on all ranks.
std::string failures_of_ranks(Group& group, const std::string& own) {
  const std::vector<std::string> failures = gather(group, own, "failures of ranks");
  if (failures.size() == 1) return failures[0];
  std::map<std::string, std::vector<size_t>> ranks;
  for (size_t r = 0; r < failures.size(); ++r)
    if (!failures[r].empty()) ranks[failures[r]].push_back(r);
  std::vector<std::string> texts;
  for (const auto& [failure, of] : ranks)
    texts.push_back(fmt::format("rank {}: {}", fmt::join(of, ", "), failure));
  return fmt::format("{}", fmt::join(texts, "; "));
}

// Thrown on all ranks alike.
class HeldOutTextError : public Error {
 public:
  using Error::Error;
};

bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

}  // namespace

void TrainConfig::validate(Errors& errors) const {
  for (size_t i = 1; i < accumulate_from.size(); ++i)
    if (accumulate_from[i].step <= accumulate_from[i - 1].step)
      errors.add("accumulate_from", "must name steps in increasing order");
  if (cuda_graph && !recompute.empty())
    errors.add("cuda_graph", "does not go with recompute: models that a graph is for keep their activations");
}

int64_t TrainConfig::accumulate_at(int64_t step) const {
  int64_t batches = accumulate;
  for (const AccumulateFrom& from : accumulate_from)
    if (step >= from.step) batches = from.batches;
  return batches;
}

Trainer::Trainer(TrainConfig config, TrainerParts parts)
    : config_(std::move(config)),
      parts_(std::move(parts)),
      device_(device_of(*parts_.model.module)),
      targets_(at::zeros({}, at::TensorOptions(at::kDouble).device(device_))),
      group_(std::make_shared<WatchedGroup>(parts_.group ? parts_.group : make_alone_group(),
                                            /*see=*/nullptr, device_)),
      parallel_(prepare(config_, parts_, group_)),
      optimizer_(config_.optimizer, parallel_->parts(), parts_.seed),
      data_(std::make_unique<StepBatches>(std::move(parts_.train))),
      modules_(gradient_modules(*parts_.model.module)),
      guard_(config_.spike),
      looks_(std::make_unique<StepLooks>(config_, guard_, parallel_->group(), parts_.name_text)),
      checkpoints_(
          std::make_unique<RunCheckpoints>(config_, parts_.output, *group_, parts_.parallel.timeout_s)) {
  if (config_.compute == Compute::kBfloat16) optimizer_.narrow(*parts_.model.module);
  parts_.model.module->train();
  name_traced(*parts_.model.module);
  if (config_.cuda_graph) {
    if (!group_->is_alone()) refuse_ranks_with_graphs();
    recorded_ = std::make_unique<RecordedPass>(
        *parts_.model.module, parts_.graph_recorder ? parts_.graph_recorder() : make_graph_recorder(device_),
        [this](const Batch& batch) { return pass(batch, /*last=*/true, /*receive_counts=*/[] {}); });
  }
  if (config_.ema) ema_ = std::make_unique<Ema>(*config_.ema, *parts_.model.module, *parallel_, optimizer_);
}

Trainer::~Trainer() = default;

Trainer::Outcome Trainer::run() {
  const bool is_first = parallel_->group().is_first();
  Progress progress(config_, parts_, modules_, step_, /*is_silent=*/!is_first);
  if (is_first && !parts_.output.empty())
    tidy_checkpoints(parts_.output, checkpoints_->saved_step(), checkpoints_->keep_policy(best_step_));
  if (step_ >= config_.steps)
    log_info(fmt::format("step {} of {} is done already; ask for more steps to go on", step_, config_.steps));
  const std::filesystem::path trace =
      parts_.output.empty() ? ""
                            : parts_.output / fmt::format("trace.rank_{}.json", parallel_->group().rank());
  const auto looks_behind = static_cast<size_t>(parts_.looks_behind.value_or(device_.is_cpu() ? 0 : 1));
  StepProfiler profiler(parts_.profile, trace, device_);
  bool stopped = false;
  while (step_ < config_.steps && !stopped) {
    profiler.before_step();
    const StepStats stats = train_step();
    // From here on, nothing changes the model.
    const bool last = step_ == config_.steps;
    bool stop = stats.stop;
    const bool shows = last || stop || stats.data_failed || due(step_, config_.log_every) ||
                       due(step_, config_.eval_every) || due(step_, config_.checkpoint_every);
    looks_->begin(step_, stats);
    if (const std::string problem = looks_->finish(shows ? 0 : looks_behind, progress); !problem.empty())
      stop_with(problem);
    if (const auto profile = profiler.after_step(last || stop)) progress.show_profile(*profile, trace);
    const auto log_step = [&] {
      progress.log_step(step_, stats, skipped(), failed_saves(),
                        gather(parallel_->group(), progress.own_figures(), "figures of ranks"));
    };
    const bool logs = last || stop || due(step_, config_.log_every);
    if (logs) log_step();
    if (stats.data_failed && !stop)
      stop_with(failures_of_ranks(parallel_->group(), data_->failure()));  // whoever stops needs no more
    bool best = false;
    if (last || due(step_, config_.eval_every)) {
      const auto start = std::chrono::steady_clock::now();
      std::optional<double> bits;
      try {
        bits = evaluate();
      } catch (const HeldOutTextError& e) {
        stop_with(e.what());
      }
      progress.log_validation(step_, bits.value_or(std::numeric_limits<double>::quiet_NaN()),
                              seconds_since(start));
      best = bits && is_best(*bits);
      if (!bits && !logs) log_step();  // a signal ended it: this step is the last one now
      stop = stop || !bits;
    }
    if (checkpoints_->has_news()) {
      progress.finish_line();
      checkpoints_->report(step_);
    }
    if (last || best || stop || due(step_, config_.checkpoint_every)) {
      progress.finish_line();
      if (save()) progress.log_save(step_, checkpoints_->times());
    }
    stopped = stop && !last;
  }
  progress.finish_line();
  const auto saving = std::chrono::steady_clock::now();
  finish_saving();
  const double saving_s = seconds_since(saving);
  parallel_->make_whole();  // the model is the caller's again
  progress.summarize(
      {.step = step_,
       .best_step = best_step_,
       .best_bits_per_byte = best_bits_per_byte_,
       .skipped = skipped(),
       .saving_s = saving_s,
       .checkpoint = checkpoints_->saved_step() ? parts_.output / "latest" : std::filesystem::path()});
  return stopped ? Outcome::kStopped : Outcome::kFinished;
}

// What was trained is saved, and the run ends.
void Trainer::stop_with(const std::string& problem) {
  looks_->count_rest();  // taken meanwhile
  std::string saved;
  try {
    save();
    finish_saving();
    if (checkpoints_->saved_step() == step_)
      saved =
          fmt::format(". What was trained is saved in {}", (parts_.output / checkpoint_name(step_)).string());
  } catch (const Error& failure) {
    saved =
        fmt::format(". What was trained since the last checkpoint could not be saved: {}", failure.what());
  }
  throw Error(problem + saved);
}

LossValue Trainer::forward(const Batch& batch) {
  const TraceRange range("forward");
  return parts_.loss(parts_.model.forward(batch), batch);
}

// last: of the step. receive_counts: sets targets_.
PassResult Trainer::pass(const Batch& batch, bool last, const std::function<void()>& receive_counts) {
  const LossValue loss = forward(batch);
  receive_counts();
  const at::Tensor share = loss.sum / targets_.to(loss.sum.scalar_type());
  const TraceRange range("backward");
  parallel_->backward(share, last);
  return {share.detach(), loss.byte_nll};
}

StepStats Trainer::train_step() {
  const TraceRange whole(fmt::format("step {}", step_ + 1));
  const std::vector<Batch> batches = data_->take(config_.accumulate_at(step_), step_ + 1);
  Group& group = parallel_->group();
  seed_step(parts_.seed, step_, group.rank(), device_);
  StepStats stats;
  group_->take_waits();  // those between steps are no part of one
  for (const Batch& batch : batches) {
    stats.targets += batch.num_targets;
    stats.text += {batch.num_byte_targets, batch.patches.count - batch.num_filler_patches,
                   batch.documents.count - batch.num_filler_documents};
  }
  // What all ranks have: on its way while the first batch is computed.
  const at::Tensor counts =
      at::tensor({static_cast<double>(stats.targets), static_cast<double>(stats.text.bytes),
                  static_cast<double>(stats.text.patches), static_cast<double>(stats.text.sequences),
                  parts_.entropy_flops ? parts_.entropy_flops() : 0.0},
                 at::kDouble);
  Group::Pending counts_come = group.sum(counts, "number of targets");
  const auto receive_counts = [&] {
    if (!counts_come) return;
    std::exchange(counts_come, {})->wait();
    const double* all = counts.const_data_ptr<double>();
    stats.targets = std::llround(all[0]);
    stats.text = {std::llround(all[1]), std::llround(all[2]), std::llround(all[3])};
    stats.entropy_flops = all[4];
    targets_.fill_(all[0]);
  };
  looks_->begin_step();
  for (const Batch& batch : batches) {
    if (recorded_) receive_counts();
    const PassResult pass = recorded_ ? recorded_->run(batch, /*is_first=*/&batch == &batches.front())
                                      : this->pass(batch, /*last=*/&batch == &batches.back(), receive_counts);
    looks_->add({.places = batch.places, .loss = pass.loss});
    stats.loss = stats.loss.defined() ? stats.loss + pass.loss : pass.loss;
    if (pass.byte_nll.defined())
      stats.byte_nll = stats.byte_nll.defined() ? stats.byte_nll + pass.byte_nll : pass.byte_nll;
  }
  if (step_ + 1 < config_.steps)  // while the last gradients travel
    data_->read_ahead(config_.accumulate_at(step_ + 1), step_ + 2);
  const TraceRange rest("gradients and update");
  const Gradients gradients = parallel_->finish_gradients();
  stats.stop = stop_requested();
  stats.data_failed = !data_->failure().empty();
  add_up(stats, group);
  at::Tensor witness = stats.loss;  // of a step that is taken
  if (config_.spike.action != OnSpike::kPass) {
    stats.spike = guard_.see(stats.loss);
    if (guard_.masks()) witness = witness.masked_fill(stats.spike, std::numeric_limits<double>::quiet_NaN());
  }
  const at::Tensor squares = parallel_->squared_norms(gradients, modules_);
  stats.module_norms = squares.sqrt();
  stats.clip = clip(squares.sum().sqrt().to(gradient_type(stats.loss)), config_.max_grad_norm, witness);
  const auto found = [](const at::Tensor& number) { return number.isfinite().logical_not(); };
  stats.is_nonfinite = found(stats.clip.norm).logical_or(found(stats.loss));
  parallel_->step(optimizer_, gradients, stats.clip,
                  learning_rate_factor(config_.schedule, step_, config_.steps));
  if (ema_) ema_->step(step_, stats.clip.found_inf);
  ++step_;
  stats.transfer_waits = group_->take_waits();
  return stats;
}

std::optional<double> Trainer::evaluate() {
  if (!parts_.valid) return std::numeric_limits<double>::quiet_NaN();
  ValidationBatches valid(parts_.valid, parallel_->group(), device_, parallel_->computes_together());
  parts_.model.module->eval();
  const ByteNll own = byte_nll(parts_.model.forward, valid);
  parts_.model.module->train();
  if (valid.was_stopped()) return std::nullopt;
  if (valid.has_failed())
    throw HeldOutTextError(fmt::format("validation at step {}: {}", step_,
                                       failures_of_ranks(parallel_->group(), valid.failure())));
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

bool Trainer::save() {
  if (!parts_.model_to_save || parts_.output.empty() || checkpoints_->saved_step() == step_) return false;
  return checkpoints_->begin(step_, best_step_, [this] {
    ModelToSave model = parts_.model_to_save();
    StateWriter place;
    data_->save(place);
    CheckpointContent content{.shares = shares_of(model), .has_ema = ema_ != nullptr, .place = place.json()};
    content.copied = DeviceMark(device_);
    // The places of the others are still to come; all else is of this step.
    content.write_rest = [rest = std::move(model.write_rest),
                          rest_of_average = ema_ ? std::move(model.write_rest_of_average) : nullptr,
                          state = state()](const std::filesystem::path& folder,
                                           const std::vector<std::string>& places) {
      rest(folder);
      if (rest_of_average) rest_of_average(folder / kEmaFolder);
      write_file(folder / kTrainerStateFile, with_places(state, places));
    };
    return content;
  });
}

int64_t Trainer::skipped() const { return looks_->skipped(); }
int64_t Trainer::failed_saves() const { return checkpoints_->num_failed(); }

void Trainer::finish_saving() {
  checkpoints_->finish(step_, [this] { save(); });
}

TensorShares Trainer::shares_of(const ModelToSave& model) const {
  const Group& group = parallel_->group();
  TensorShares shares = model_shares(kModelFile, model.tensors, parallel_->own_parameters(),
                                     parallel_->parts(), *parts_.model.module, group.rank(), group.size());
  for (TensorShare& share : optimizer_shares(kOptimizerFile, optimizer_.state(), parallel_->parts(),
                                             *parts_.model.module, group.rank(), group.size()))
    shares.push_back(std::move(share));
  if (ema_)
    for (TensorShare& share : ema_->shares(model)) shares.push_back(std::move(share));
  return shares;
}

// Without the places in the data.
StateWriter Trainer::state() const {
  StateWriter state;
  state.put("step", step_);
  looks_->save(state);
  StateWriter losses = state.section("losses");
  guard_.save(losses);
  state.put("seed", parts_.seed);
  state.put("best_step", best_step_);
  state.put("best_bits_per_byte",
            fmt::format("{}", best_bits_per_byte_));  // the shortest text that reads back equal
  return state;
}

void Trainer::load_data(const StateReader& state) {
  const int64_t ranks = state.integer("ranks");
  const Group& group = parallel_->group();
  if (ranks == group.size()) return data_->load(state.section(data_key(group.rank())));
  if (!parts_.hand_over)
    throw Error(
        fmt::format("the checkpoint is of {} ranks, and its data cannot go on with {}", ranks, group.size()));
  std::vector<StateReader> states;
  for (int64_t r = 0; r < ranks; ++r) states.push_back(state.section(data_key(r)));
  data_->load(StateReader(parts_.hand_over(states), "the data of all ranks"));
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
  parallel_->make_whole();
  if (ema_) {
    if (std::filesystem::exists(checkpoint / kEmaFolder))
      ema_->load(checkpoint / kEmaFolder, parts_.model_to_save());
    else
      log_info("no average of the weights in the checkpoint: it starts with the weights");
  }
  optimizer_.load(checkpoint / kOptimizerFile, *parts_.model.module);
  load_data(state);
  step_ = state.integer("step");
  looks_->load(state);
  guard_.load(state.section("losses"));
  best_step_ = state.integer("best_step");
  const std::vector<int64_t> steps = sum_of_counts(parallel_->group(), {step_}, "step to go on from");
  if (steps[0] != step_ * parallel_->group().size())
    throw Error(
        fmt::format("{}: is of step {}, but other ranks see another checkpoint: all need the same files",
                    checkpoint.string(), step_));
  checkpoints_->resumed_from(checkpoint, step_);
}

}  // namespace blt
