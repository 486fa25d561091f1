// A run from its config: the usual parts, put together.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "blt/train/group.h"
#include "blt/train/run_config.h"
#include "blt/train/trainer.h"

namespace blt {

struct RunOptions {
  // A model directory to start from (fine-tuning). A BLT's brings its shape, its entropy model and, where the config does not say another
  // rule or threshold, its patching; the config then has no `model` and no `entropy_model`. An entropy model's brings its shape and
  // initialises the entropy model that is trained.
  std::optional<std::filesystem::path> init;
  // "auto": go on from the newest whole checkpoint in config.output, or start there when it has none. Else: go on from this checkpoint, or
  // from the newest whole one in this folder of a run. The config (and init) are those that the run was started with, but for `output`, all
  // of `train` (steps, rates, how often things happen), `parallel` and the number of ranks, data.validation, how entropies are cached and
  // batched, data.threads, data.prefetch, and the models' dropout and initialisation.
  std::optional<std::string> resume;
  // Build everything, train one step of each model, write nothing.
  bool check = false;
  // Steps of each model's training whose time is recorded.
  ProfileConfig profile = {};
  // This process's number among the ranks of its machine: which device `cuda` is.
  int64_t local_rank = 0;
  // The ranks that train together, all of which call run() alike; null: this process is alone. The first writes.
  std::shared_ptr<Group> group = nullptr;
};

// Trains the entropy model (where the config says so), calibrates the patching threshold (where it is not given), then trains the
// Byte Latent Transformer. Checkpoints are model directories with the resolved config of the run (run.yaml) and the trainer's state beside
// them (docs/formats.md). A run that was stopped or killed and goes on gives the same numbers as one that never stopped, on the CPU bit
// for bit.
//
// A signal that catch_stop_signals() catches saves and stops (kStopped); before the first step, when there is nothing to save, it ends the
// process at once.
//
// Throws blt::Error for what the user did wrong; a run never writes over another, nor into a folder that another process writes into. Of
// several ranks, the one that fails first throws what happened, and the others FailureTold; do not destroy the group then, which may wait
// for ranks that hang, but end the process.
Trainer::Outcome run(RunConfig config, const RunOptions& options = {});

// The parameters and FLOPs of the config's models (model/report.h), counted without allocating them.
std::string cost_table(const RunConfig& config);

}  // namespace blt
