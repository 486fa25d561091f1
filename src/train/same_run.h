// Whether a checkpoint can go on with the settings of today.
#pragma once

#include <filesystem>

#include "blt/io/model_dir.h"
#include "blt/train/run_config.h"

namespace blt {

// Throws blt::Error, listing what differs, unless the settings are those that the checkpoint was made with, but for what may change
// (RunOptions::resume in blt/train/run.h). Anything else would make the saved place in the data, or the weights, mean something else.
void require_same_run(const std::filesystem::path& checkpoint, const RunSettings& settings,
                      const ModelConfig& model);
void require_same_run(const std::filesystem::path& checkpoint, const RunSettings& settings,
                      const EntropyModelConfig& entropy_model);

}  // namespace blt
