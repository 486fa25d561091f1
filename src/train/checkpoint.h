// Where a run's checkpoints lie, and which of them are whole. docs/formats.md describes their files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <optional>
#include <vector>

#include "blt/train/trainer.h"

namespace blt {

// What a model directory needs besides its model to be a checkpoint.
constexpr const char* kTrainerStateFile = "trainer_state.json";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kEmaFolder = "ema";  // a model directory; there where the run averages its weights

// Fills a temporary folder by calling `save` with it, renames it to `output/step_<step>`, points the links `latest` and `best`, then
// removes what the policy does not keep. Returns the checkpoint's folder. Throws blt::Error when the disk does not take it: then everything
// is as it was.
std::filesystem::path write_checkpoint(const std::filesystem::path& output, int64_t step,
                                       const KeepPolicy& keep,
                                       const std::function<void(const std::filesystem::path&)>& save);

// Writes checkpoints in a thread, one at a time. Destroyed, it finishes the one under way. Not thread-safe.
class CheckpointWriter {
 public:
  // write: calls write_checkpoint(). There may be none under way.
  void start(std::function<std::filesystem::path()> write);
  // The checkpoint that was started, once it is there; none before that, and none again after it has been given. Throws what writing threw.
  std::optional<std::filesystem::path> finished();  // does not wait
  std::optional<std::filesystem::path> wait();

 private:
  std::future<std::filesystem::path> writing_;
};

// Brings a folder in order after a process was killed in the middle of write_checkpoint: leftovers go, links point where they should.
// step: of the newest whole checkpoint; none when there is none.
void tidy_checkpoints(const std::filesystem::path& output, std::optional<int64_t> step,
                      const KeepPolicy& keep);

// The step of a folder called step_<step>; none for other names.
std::optional<int64_t> checkpoint_step(const std::filesystem::path& folder);

// output/step_*, the newest first; empty where there is no such folder.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& output);

// Throws blt::Error, naming the file, unless the folder has a trainer state and all its tensor files are as long as their headers say.
void check_checkpoint(const std::filesystem::path& folder);

// The newest of list_checkpoints that is whole; damaged ones are named in a warning.
std::optional<std::filesystem::path> newest_whole_checkpoint(const std::filesystem::path& output);

// Throws blt::Error when `output` holds checkpoints of an earlier run: a run never writes over another.
void require_fresh_output(const std::filesystem::path& output);

}  // namespace blt
