// The training loop.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "blt/base/config.h"
#include "blt/batch.h"
#include "blt/data/stage.h"
#include "blt/model/compute.h"
#include "blt/text_place.h"
#include "blt/train/device_graph.h"
#include "blt/train/gradients.h"
#include "blt/train/group.h"
#include "blt/train/group_layer.h"
#include "blt/train/loss.h"
#include "blt/train/loss_guard.h"
#include "blt/train/optimizer.h"
#include "blt/train/parallel.h"
#include "blt/train/schedule.h"

namespace blt {

class Ema;
class RecordedPass;
struct PassResult;
class RunCheckpoints;
class StepBatches;
class StepLooks;
struct TensorShare;

// What happens at a step whose loss or gradient is NaN or infinite. Either way it changes nothing.
enum class OnNonfinite {
  kStop,  // the run saves, and ends with an error that names the step
  kSkip,  // the run goes on with the next step, until skip_limit in a row were skipped
};
template <>
struct EnumNames<OnNonfinite> {
  static constexpr std::pair<OnNonfinite, std::string_view> kValues[] = {{OnNonfinite::kStop, "stop"},
                                                                         {OnNonfinite::kSkip, "skip"}};
};

// An exponential moving average of the weights.
struct EmaConfig {
  double decay = 0.9999;
  bool tables = false;

  static void fields(auto& self, auto&& field) {
    field("decay", self.decay,
          "What stays of the average in a step; in the first ones less, (1 + step) / (10 + step).",
          between(0, 0.99999999));
    field("tables", self.tables,
          "Whether n-gram tables are averaged too, which takes 4 bytes an element; else it has the model's.");
  }
};

// From a step on, another number of batches in each.
struct AccumulateFrom {
  int64_t step = 0;
  int64_t batches = 1;

  static void fields(auto& self, auto&& field) {
    field("step", self.step, "Steps done before.", at_least(0));
    field("batches", self.batches, "train.accumulate from then on.", at_least(1));
  }
};

struct TrainConfig {
  int64_t steps = 1000;
  int64_t accumulate = 1;
  std::vector<AccumulateFrom> accumulate_from = {};
  Compute compute = Compute::kFloat32;
  double max_grad_norm = 1.0;
  std::optional<double> peak_tflops = {};
  OnNonfinite on_nonfinite = OnNonfinite::kSkip;
  SpikeConfig spike = {};
  int64_t skip_limit = 10;
  std::vector<std::string> recompute = {};
  bool cuda_graph = false;
  OptimizerConfig optimizer = {};
  ScheduleConfig schedule = {};
  std::optional<EmaConfig> ema = {};
  int64_t log_every = 10;
  int64_t eval_every = 0;
  int64_t checkpoint_every = 0;
  int64_t keep_checkpoints = 3;
  int64_t keep_every = 0;
  int64_t last_save_tries = 6;
  double save_patience_s = 10;
  double save_timeout_s = 1800;

  static void fields(auto& self, auto&& field) {
    field("steps", self.steps, "Optimizer steps.", at_least(1));
    field("accumulate", self.accumulate, "Batches whose gradients are added up in a step.", at_least(1));
    field("accumulate_from", self.accumulate_from,
          "A batch that grows: other numbers from later steps on, in their order, such as [{step: 1000, "
          "batches: 4}].");
    field("compute", self.compute,
          "Type of parameters and activations. With bfloat16 the optimizer owns a float32 master of every "
          "parameter, and checkpoints hold both.");
    field("max_grad_norm", self.max_grad_norm, "Gradients are scaled down to at most this norm; 0: never.",
          at_least(0));
    field(
        "peak_tflops", self.peak_tflops,
        "What a rank's processor can do at most, in 10^12 FLOP/s of this compute type: the log then has the "
        "model FLOPs' share of it. None: no share.",
        above(0));
    field("on_nonfinite", self.on_nonfinite,
          "At a loss or gradient that is NaN or infinite, on any rank: skip the step on all of them, which "
          "changes nothing, counts, and ends the run at skip_limit; or stop the run at once.");
    field("spike", self.spike, "Steps whose loss is far above those before.");
    field(
        "skip_limit", self.skip_limit,
        "Steps in a row that may be skipped (on_nonfinite, spike) before the run ends with an error; 0: any "
        "number.",
        at_least(0));
    field("recompute", self.recompute,
          "Names of layers, such as latent_transformer.layers.*, whose activations are not kept but computed "
          "again in the backward pass: less memory, for the time of another forward; * is any text, ? any "
          "character. The numbers stay the same.");
    field(
        "cuda_graph", self.cuda_graph,
        "Whether forward and backward of a batch are recorded in the third step, as a CUDA graph that later "
        "steps replay: for models so small that the GPU waits for the host to launch its kernels. Needs "
        "data.batch_sequences, one rank, no dropout and nothing to recompute.");
    field("optimizer", self.optimizer, "What moves the parameters.");
    field("schedule", self.schedule, "The learning rate over the steps.");
    field("ema", self.ema,
          "An average of the weights over the steps, which checkpoints hold as a model directory of its own, "
          "ema/; "
          "none: no average. Validation is of the weights that are trained.");
    field("log_every", self.log_every, "Steps between log lines.", at_least(1));
    field("eval_every", self.eval_every,
          "Steps between validations; 0: only at the end. One that is better than all before is saved.",
          at_least(0));
    field("checkpoint_every", self.checkpoint_every, "Steps between checkpoints; 0: only at the end.",
          at_least(0));
    field("keep_checkpoints", self.keep_checkpoints,
          "How many of the newest checkpoints stay, besides the best by validation; 0: all.", at_least(0));
    field("keep_every", self.keep_every,
          "Checkpoints of steps that are multiples of this stay for ever, however old; 0: none.",
          at_least(0));
    field("last_save_tries", self.last_save_tries,
          "How often the last checkpoint of a run (or of a stop) is tried where it cannot be written, with "
          "1, 2, "
          "4, ... seconds in between, before the run ends with an error. Others are not tried again.",
          between(1, 20));
    field("save_patience_s", self.save_patience_s,
          "How long the training waits, in seconds, when a checkpoint is due and the one before is not "
          "written yet; "
          "then this one is left out.",
          between(0, kSomeSeconds.high));
    field("save_timeout_s", self.save_timeout_s,
          "How long the end of a run (or a stop) waits, in seconds, for a checkpoint that is being written, "
          "before "
          "the run ends with an error: a disk may hang.",
          kSomeSeconds);
  }
  void validate(Errors& errors) const;
  int64_t accumulate_at(int64_t step) const;  // batches of step `step`, from 0
};

// A module, and how it turns a batch into [T, V] logits.
struct TrainableModel {
  std::shared_ptr<torch::nn::Module> module = {};
  std::function<at::Tensor(const Batch&)> forward;
};
// From a module that has forward(const Batch&): trainable(blt), trainable(entropy_model).
template <class Impl>
TrainableModel trainable(const torch::nn::ModuleHolder<Impl>& holder) {
  return {holder.ptr(), [model = holder.ptr()](const Batch& batch) { return model->forward(batch); }};
}

// A model as a checkpoint has it: a model directory.
struct ModelToSave {
  // Of model.safetensors, by their names there: the model's own parameters, not views of them, which the trainer copies; some may be divided
  // among the ranks. The same on all ranks.
  std::vector<std::pair<std::string, at::Tensor>> tensors = {};
  // Writes the directory's other files (config.json) into a folder; called at the first rank, on another thread, while the training goes on.
  std::function<void(const std::filesystem::path& folder)> write_rest = {};
  // The same for another folder, whose weights are float32 averages; needed where there is a config.ema.
  std::function<void(const std::filesystem::path& folder)> write_rest_of_average = {};
};

// Steps whose time is recorded: docs/gpu.md, "Where a step's time goes".
struct ProfileConfig {
  int64_t steps = 0;  // after a few that warm up; 0: none
  bool nvtx = false;  // as NVTX ranges, for NVIDIA's tools, instead of a trace
};

// What models read.
struct TextCounts {
  int64_t bytes = 0;      // of text: targets that are bytes
  int64_t patches = 0;    // 0 where a model reads bytes alone
  int64_t sequences = 0;  // documents, whole or cut
  TextCounts& operator+=(const TextCounts& other) {
    bytes += other.bytes;
    patches += other.patches;
    sequences += other.sequences;
    return *this;
  }
};

// Everything the loop is given; each part can be a user's own.
struct TrainerParts {
  TrainableModel model = {};
  // Never ends, or has enough batches for all steps. Each rank's its own share (data/split.h).
  std::unique_ptr<Stage<Batch>> train = {};
  // Makes one state of `train` out of those of all ranks, where a checkpoint goes on with another number of them; may be empty.
  std::function<StateWriter(std::span<const StateReader>)> hand_over = {};
  // A fresh pass over the held-out batches, each rank's its own share; may be empty.
  std::function<std::unique_ptr<Stage<Batch>>()> valid = {};
  Loss loss = next_id_loss;
  // Names a place of the training text, in messages about steps that were skipped; may be empty.
  std::function<std::string(const TextPlace&)> name_text = {};
  // Numbers about the data with their names, asked for at every log step and written beside the step's own; may be empty.
  std::function<std::vector<std::pair<std::string, double>>()> metrics = {};
  // What a checkpoint says of the model; may be empty: nothing is saved. With a config.ema its tensors are the model's parameters themselves.
  std::function<ModelToSave()> model_to_save = {};
  // Checkpoints go to output/step_00001000, on a file system that all ranks share; `latest` points at the newest, `best` at the best by validation.
  // Empty: nothing is written.
  std::filesystem::path output = {};
  // The ranks that train together; null: this one is alone. And how.
  std::shared_ptr<Group> group = nullptr;
  ParallelConfig parallel = {};
  int64_t seed = 1;  // of dropout, and of what the optimizer rounds
  // FLOPs of training on that, forward and backward, for the log; may be empty.
  std::function<double(const TextCounts&)> flops = {};
  // FLOPs that the entropy model has spent for this rank's training since the last call, for the log; may be empty.
  std::function<double()> entropy_flops = {};
  // The trace of each rank goes to output/trace.rank_0.json.
  ProfileConfig profile = {};
  // What records the passes of config.cuda_graph; empty: make_graph_recorder for the model's device.
  std::function<std::unique_ptr<GraphRecorder>()> graph_recorder = {};
  // How many steps later it is looked at whether a step changed anything, where nothing is logged, validated or saved before: a device goes on
  // computing meanwhile. None: 0 on the CPU, which has nothing to wait for, else 1. The same on all ranks.
  std::optional<int64_t> looks_behind = {};
};

// What one step did, on all ranks together. Tensors stay on the device until somebody looks.
struct StepStats {
  at::Tensor loss = {};          // [] per target, nats
  at::Tensor byte_nll = {};      // [] summed, nats; undefined when the loss does not say
  ClipResult clip;               // its found_inf: the step changed nothing, because of a spike too
  at::Tensor is_nonfinite = {};  // [] bool: the loss, or its gradient
  at::Tensor module_norms =
      {};  // [modules] float64: the gradient's norm in each of gradient_modules(), before clipping
  int64_t targets = 0;
  TextCounts text = {};
  double entropy_flops = 0;   // that the entropy model spent since the step before
  Waits transfer_waits = {};  // of this rank's device for transfers, and for the others in them
  at::Tensor spike =
      {};  // [] bool: the loss is far above those before; undefined where nobody asks (SpikeConfig)
  bool stop = false;         // a rank was asked to stop (base/signals.h)
  bool data_failed = false;  // a rank cannot read what the next step needs: there is none
};

// For how long the training stopped for a checkpoint, on this rank.
struct SaveTimes {
  double stop_s = 0;  // in all
  double wait_s = 0;  // of that: until the checkpoint before was written
  double copy_s = 0;  // and for the copies
};

// Which checkpoints stay.
struct KeepPolicy {
  int64_t newest = 0;     // this many of the newest; 0: all
  int64_t every = 0;      // those of its multiples too; 0: none
  int64_t best_step = 0;  // this one too, and the link `best` points at it; 0: there is none
};

// Trains `parts.model` for `config.steps` steps, on the device that its parameters are on. A step hands work to the device and does not wait for
// it; what a run looks at, and when, is in docs/gpu.md. The random numbers of a step (LibTorch's default generators) follow from the seed, the
// step and the rank alone. With several ranks, each has a trainer with the same settings, and all call the same functions; the first alone
// logs, and all write checkpoints, each its part. Not thread-safe.
class Trainer {
 public:
  // Throws blt::Error when config.optimizer.groups do not fit the model, and when config.cuda_graph is asked of several ranks or of a device
  // that has none. With config.compute bfloat16 the module's parameters, float32
  // until then, become bfloat16 here, and stay so.
  Trainer(TrainConfig config, TrainerParts parts);
  ~Trainer();

  // Goes on from a checkpoint that a trainer with the same settings saved, bit for bit as if it had never stopped; where there were more
  // or fewer ranks, or they divided other things among themselves, with the same data and up to rounding. The weights are
  // the caller's to load, before the trainer is made. The checkpoint may be of the other compute type: from bfloat16 the masters go on as
  // parameters, from float32 the parameters became masters. Throws blt::Error when the checkpoint is damaged or of another run.
  void resume(const std::filesystem::path& checkpoint);

  enum class Outcome { kFinished, kStopped };  // kStopped: a signal came; the state was saved
  // Checkpoints are written by a thread while the training goes on, from copies: the last one is there when this returns. One that cannot be
  // written is warned about, and the training goes on; those written before stay.
  // Throws blt::Error when the last checkpoint cannot be written; once the state is saved, also when a rank cannot read what the next step or a validation needs,
  // and when a loss is not finite or a spike and the config says to stop; with parts.looks_behind, so many steps later, which are saved with it.
  Outcome run();

  // Where several ranks divide something (parts.parallel), what is in the module's parameters afterwards is to be read after
  // parallel().make_whole() alone; so it is when run() has thrown. Batches are read a step ahead, up to config.steps; a rank that cannot read
  // those of its step throws blt::Error.
  StepStats train_step();
  // Begins a checkpoint of this step; false where there is one, or nothing to save, or it is left out (save_patience_s). What became of the one
  // before is logged.
  bool save();
  // Waits until the checkpoint under way is written; when it cannot be, or one was left out since, tries it again (last_save_tries) for the step it
  // is at now. Throws blt::Error in the end, and when that takes too long (save_timeout_s).
  void finish_saving();

  const Optimizer& optimizer() const { return optimizer_; }
  const std::vector<std::string>& modules() const { return modules_; }  // those of StepStats::module_norms
  Parallel& parallel() const { return *parallel_; }
  int64_t step() const { return step_; }  // steps done
  int64_t skipped() const;                // of them, those that changed nothing
  // Checkpoints that could not be written, by what rank 0 says: the other ranks learn it when the next one is due.
  int64_t failed_saves() const;
  // Bits per byte on the held-out batches; NaN when there are none. None when a rank was asked to stop before their end. Leaves the model in
  // training mode. Throws blt::Error, on all ranks, when one cannot read its text.
  std::optional<double> evaluate();

 private:
  bool is_best(double bits_per_byte);
  std::vector<TensorShare> shares_of(const ModelToSave& model) const;
  StateWriter state() const;
  LossValue forward(const Batch& batch);
  PassResult pass(const Batch& batch, bool last, const std::function<void()>& receive_counts);
  [[noreturn]] void stop_with(const std::string& problem);
  void load_data(const StateReader& state);

  TrainConfig config_;
  TrainerParts parts_;
  at::Device device_;   // of the parameters
  at::Tensor targets_;  // [] float64, there: of the step, on all ranks
  std::shared_ptr<WatchedGroup> group_;
  std::unique_ptr<Parallel> parallel_;
  Optimizer optimizer_;
  std::unique_ptr<StepBatches> data_;  // of parts.train
  std::vector<std::string> modules_;   // gradient_modules()
  LossGuard guard_;
  std::unique_ptr<StepLooks> looks_;  // at the steps that were taken, and those that were skipped
  int64_t step_ = 0;
  int64_t best_step_ = 0;  // 0: not validated yet
  double best_bits_per_byte_ = 0.0;
  std::unique_ptr<Ema> ema_;  // null: no average
  std::unique_ptr<RunCheckpoints> checkpoints_;
  std::unique_ptr<RecordedPass> recorded_;  // null: passes are not recorded
};

}  // namespace blt
