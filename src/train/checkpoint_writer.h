// Writes checkpoints while the training goes on, all ranks together.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
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
  double timeout_s = 0;  // of the first rank: until the others have written, after it has
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
  std::string unheard =
      {};  // of another rank than the first: why it has not written its part, where its mark could not say so
};

// One checkpoint at a time, in a thread. The ranks meet in the temporary folder: each has a file there whose name says when it has written, the first rank
// waits for those, removes them, adds the manifest and gives the folder its name, and the others wait for that, for as long as it takes.
// So what is there is whole, whichever of them ends before. Nothing throws: what goes wrong is the outcome, on all ranks. Not thread-safe.
class CheckpointWriter {
 public:
  // longest: what the destructor gives the one under way.
  explicit CheckpointWriter(std::chrono::duration<double> longest) : longest_(longest) {}
  // Finishes the one under way, or abandons it; for the other ranks it waits no longer than seconds.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // There may be none under way.
  void start(CheckpointJob job);
  // Instead, where it is known already that it cannot be written.
  void fail(int64_t step, std::string failure);
  // What became of it, once that is known; none before that, and none again after it has been given.
  std::optional<SavedCheckpoint> wait();
  std::optional<SavedCheckpoint> wait(std::chrono::duration<double> longest);
  // Whether one is under way, or its outcome has not been given.
  bool is_busy() const { return writing_.valid(); }
  // Waits for the other ranks no longer, for it is known what they do: why the checkpoint will not be there; empty: it is.
  void stop_waiting(const std::string& why);
  // What this rank does for it now: "writing FILE"; empty where it waits for others.
  std::string doing() const;
  // Waits for it no more: on a disk that hangs its thread stays until the process ends. It will not be a checkpoint.
  void abandon();

  // Between the thread that writes and the one that trains.
  struct Word {
    std::atomic<bool> hurry{false};
    std::atomic<bool> stop{false};
    std::atomic<bool> abandoned{false};
    std::string why = {};  // written before `stop`

    void does(std::string what) {
      const std::lock_guard lock(mutex_);
      doing_ = std::move(what);
    }
    std::string doing() const {
      const std::lock_guard lock(mutex_);
      return doing_;
    }

   private:
    mutable std::mutex mutex_;
    std::string doing_;
  };

 private:
  std::chrono::duration<double> longest_;
  std::future<SavedCheckpoint> writing_;
  std::thread thread_;
  std::shared_ptr<Word> word_ = std::make_shared<Word>();
};

}  // namespace blt
