// The checkpoints of a run while it trains: begun, waited for, reported, and tried again.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blt/base/files.h"
#include "blt/train/group.h"
#include "blt/train/trainer.h"
#include "model/device_mark.h"
#include "train/checkpoint_writer.h"
#include "train/tensor_share.h"

namespace blt {

// What a checkpoint is of, on this rank: copies, so that the training may go on.
struct CheckpointContent {
  TensorShares shares = {};
  bool has_ema = false;                       // among the shares
  DeviceMark copied{c10::Device(c10::kCPU)};  // behind which a device has filled them
  std::string place = {};                     // in the data: JSON
  // Of the first rank: writes the files without shares. places: of all ranks.
  std::function<void(const std::filesystem::path& folder, const std::vector<std::string>& places)>
      write_rest = {};
};

// One is written while the next steps are computed; all ranks call the same functions in the same order, and the first of them says what
// became of it. Not thread-safe.
class RunCheckpoints {
 public:
  // config: how many stay, when they are due, and how often the last one is tried. timeout_s: of a transfer. The group outlives this.
  RunCheckpoints(const TrainConfig& config, std::filesystem::path output, Group& group, double timeout_s);

  // The newest, or the one under way.
  std::optional<int64_t> saved_step() const { return saved_step_; }
  int64_t num_failed() const { return num_failed_; }  // that could not be written, by what rank 0 says
  const SaveTimes& times() const { return times_; }   // of the last one
  KeepPolicy keep_policy(int64_t best_step) const;
  // A run goes on from a checkpoint, of this output or another.
  void resumed_from(const std::filesystem::path& checkpoint, int64_t step);

  // Begins the one of this step, once the one before is there; false, with a warning, where that takes longer than config.save_patience_s:
  // this one is left out. copy: makes the content.
  bool begin(int64_t step, int64_t best_step, const std::function<CheckpointContent()>& copy);
  // Whether there is news of the one under way, on this rank, which report() tells. Does not wait.
  bool has_news();
  void report(int64_t step);
  // Waits for the one under way. Where it cannot be written, it is begun again by `again`, for the step of then, with pauses, and so is one that
  // was left out. Throws blt::Error in the end, and where config.save_timeout_s is over: what was trained since the one before would be lost.
  void finish(int64_t step, const std::function<void()>& again);

 private:
  using Seconds = std::chrono::duration<double>;
  // What became of the one under way: on this rank, none where that is not known in time; and on all of them.
  std::optional<SavedCheckpoint> wait_for_own_part(Seconds longest);
  struct Written;
  Written wait_for_all(int64_t step, Seconds longest);
  void settle(bool is_there);
  int64_t next_due(int64_t step) const;
  std::shared_ptr<AtomicDirectory> make_folder(int64_t step);
  bool still_makes_folder();
  void report(const SavedCheckpoint& saved, int64_t step) const;

  TrainConfig config_;
  std::filesystem::path output_;
  Group& group_;
  double timeout_s_;
  CheckpointWriter writer_;
  std::future<std::shared_ptr<AtomicDirectory>>
      folder_;  // of the first rank, where a disk that hangs still makes it
  std::optional<SavedCheckpoint> news_;
  std::optional<int64_t> saved_step_;
  std::filesystem::path unsettled_;              // the last one, until rank 0 has said whether it is there
  std::filesystem::path newest_whole_;           // of those that are known to be whole; empty: none
  std::string failure_;                          // of the last one, what the other ranks are still to be told
  std::chrono::steady_clock::time_point begun_;  // the last one
  bool left_out_ = false;                        // one since
  int64_t num_failed_ = 0;
  SaveTimes times_;
};

}  // namespace blt
