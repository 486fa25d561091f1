// What a run trains.
#pragma once

#include <filesystem>
#include <optional>

#include "blt/model/blt.h"
#include "blt/model/entropy_model.h"
#include "blt/train/run_config.h"
#include "train/run_start.h"

namespace blt {

// Built from the config, or from the model directory that the run starts from.
struct Models {
  EntropyModel entropy_model{nullptr};  // null where nobody needs one
  bool train_entropy_model = false;
  Blt blt{nullptr};  // null where the entropy model is trained alone
};

// With new parameters, or those of `init` (RunOptions), which also puts into the config what it brings.
Models make_models(RunConfig& config, const std::optional<std::filesystem::path>& init);

// Puts the checkpoint's weights in place, and the threshold that they were trained with. Throws blt::Error when the checkpoint is of
// another run (same_run.h).
void restore(const Checkpoints& checkpoints, RunConfig& config, const Models& models);

}  // namespace blt
