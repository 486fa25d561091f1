// A run from its config: the usual parts, put together.
#pragma once

#include <filesystem>
#include <optional>

#include "blt/train/run_config.h"
#include "blt/train/trainer.h"

namespace blt {

// Trains the entropy model (where the config says so), calibrates the patching threshold (where it is not given), then trains the
// Byte Latent Transformer. Checkpoints are model directories with the resolved config of the run beside them (run.yaml).
//
// init: a model directory to start from (fine-tuning). A BLT's brings its shape, its patching and its entropy model; the config then
// has no `model` and no `entropy_model`. An entropy model's brings its shape and initialises the entropy model that is trained.
//
// Throws blt::Error for what the user did wrong; a run never writes over another.
Trainer::Outcome run(RunConfig config, const std::optional<std::filesystem::path>& init = std::nullopt);

}  // namespace blt
