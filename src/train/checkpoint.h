// Where a run's checkpoints lie, and which of them are whole. docs/formats.md describes their files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "blt/train/group.h"
#include "blt/train/trainer.h"

namespace blt {

// Some of a checkpoint's files.
constexpr const char* kTrainerStateFile = "trainer_state.json";
constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kEmaFolder = "ema";  // a model directory; there where the run averages its weights
constexpr const char* kEmaModelFile = "ema/model.safetensors";

// "step_00000100"
std::string checkpoint_name(int64_t step);

// After the checkpoint of `step` has come, the newest: points the links `latest` and `best`, then removes what the policy does not keep. Gives why a link could not be pointed (a file system may have none); empty: all is done.
[[nodiscard]] std::string apply_policy(const std::filesystem::path& output, int64_t step,
                                       const KeepPolicy& keep);

// Brings a folder in order after a process was killed while it wrote a checkpoint: leftovers go, newer ones than `step`, which are damaged, become
// step_<step>.damaged, links point where they should, and what cannot be done is warned about.
// step: of the newest whole checkpoint; none when there is none.
void tidy_checkpoints(const std::filesystem::path& output, std::optional<int64_t> step,
                      const KeepPolicy& keep);

// The step of a folder called step_<step>; none for other names.
std::optional<int64_t> checkpoint_step(const std::filesystem::path& folder);

// output/step_*, the newest first; empty where there is no such folder.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& output);

// All ranks call these with the same folder, and get the same; each reads its share of the bytes.
//
// Throws blt::Error, naming the file, unless the folder is a checkpoint and every byte of its files is as it was written.
void check_checkpoint(const std::filesystem::path& folder, Group& group);
// The newest of list_checkpoints that is whole; damaged ones are named in a warning. None where there is no checkpoint; throws blt::Error where
// there are, and none is whole: a disk that some rank does not see looks like that, and a run must not begin anew over it.
std::optional<std::filesystem::path> newest_whole_checkpoint(const std::filesystem::path& output,
                                                             Group& group);

// Throws blt::Error when `output` holds checkpoints of an earlier run: a run never writes over another.
void require_fresh_output(const std::filesystem::path& output);

}  // namespace blt
