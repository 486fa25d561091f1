// Writes checkpoints while the training goes on, all ranks together.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blt/base/files.h"
#include "model/device_mark.h"
#include "train/checkpoint.h"
#include "train/tensor_share.h"

namespace blt {

// What a rank does for one checkpoint.
struct CheckpointJob {
  std::filesystem::path output = {};
  std::string temporary = {};  // the folder that is filled, in `output`, which all ranks see
  int64_t step = 0;
  int64_t rank = 0, ranks = 1;
  double timeout_s = 0;  // until the other ranks have written, after this one has
  TensorShares shares = {};
  DeviceMark copied{c10::Device(c10::kCPU)};   // behind which a device has filled them
  std::vector<std::string> descriptions = {};  // of all ranks' shares
  bool has_ema = false;                        // among the shares
  // Of the first rank alone.
  std::shared_ptr<AtomicDirectory> directory = {};                    // whose path is `temporary`
  std::function<void(const std::filesystem::path&)> write_rest = {};  // the files without shares
  KeepPolicy keep = {};
};

struct SavedCheckpoint {
  int64_t step = 0;
  std::filesystem::path path = {};
  std::string failure =
      {};  // why it is not there, or (at the first rank) that it is, but what should follow was not done
  bool is_there = false;
};

// One checkpoint at a time, in a thread. The ranks meet in the temporary folder: each has a file there whose name says when it has written, the first rank
// waits for those, removes them, adds the manifest and gives the folder its name, and the others wait for that. So what is there is whole,
// whichever of them ends before. Nothing throws: what goes wrong is the outcome, on all ranks. Not thread-safe.
class CheckpointWriter {
 public:
  // Finishes the one under way; for the other ranks it waits no longer than seconds.
  ~CheckpointWriter();

  // There may be none under way.
  void start(CheckpointJob job);
  // Instead, where it is known already that it cannot be written.
  void fail(int64_t step, std::string failure);
  // What became of it, once that is known; none before that, and none again after it has been given.
  std::optional<SavedCheckpoint> finished();  // does not wait
  std::optional<SavedCheckpoint> wait();

 private:
  std::future<SavedCheckpoint> writing_;
  std::atomic<bool> hurry_{false};
};

}  // namespace blt
