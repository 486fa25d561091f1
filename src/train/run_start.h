// Where a run starts: afresh, or from a checkpoint.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "blt/train/group.h"
#include "blt/train/run_config.h"

namespace blt {

// Where a run goes on; empty where it starts.
struct Checkpoints {
  std::optional<std::filesystem::path> entropy_model, blt;  // of the model that is being trained
};

// resume: as in RunOptions. All ranks call it alike, and read the checkpoint together. Throws blt::Error where the run would write over another one, or the checkpoint is none.
Checkpoints find_checkpoints(const RunConfig& config, const std::optional<std::string>& resume, Group& group);

}  // namespace blt
