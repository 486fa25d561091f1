// How steps went, as soon as the host knows.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "blt/data/state.h"
#include "blt/text_place.h"
#include "blt/train/group.h"
#include "blt/train/loss_guard.h"
#include "blt/train/trainer.h"
#include "model/device_mark.h"

namespace blt {

class Progress;

// A batch that was trained on, on this rank.
struct TrainedBatch {
  std::vector<TextPlace> places;
  at::Tensor loss;  // []
};

// Steps were taken, or changed nothing, by flags on the device; these are on their way to the host while it hands over the next step. All ranks
// call the same functions in the same order. Not thread-safe.
class StepLooks {
 public:
  // name_text: of TrainerParts. The others outlive this.
  StepLooks(const TrainConfig& config, const LossGuard& guard, Group& group,
            std::function<std::string(const TextPlace&)> name_text);

  // Of the step that is computed now.
  void begin_step() { batches_.clear(); }
  void add(TrainedBatch batch) { batches_.push_back(std::move(batch)); }
  // It has been handed to the device, the last one of all.
  void begin(int64_t step, const StepStats& stats);

  // Looks at all but the newest `most_left` steps, waiting for the device where it must, and tells `progress` of each. Why the run must not go
  // on, then; empty: it may.
  std::string finish(size_t most_left, Progress& progress);
  // Counts what is left, for a run that ends; nobody is told of it.
  void count_rest();

  int64_t skipped() const { return skipped_; }  // steps that changed nothing
  void save(StateWriter& out) const;
  void load(const StateReader& in);

 private:
  struct Look {
    int64_t step;
    StepStats stats;
    std::vector<TrainedBatch> batches;
    at::Tensor flags;  // [3] bool, on the host
    DeviceMark flags_are_there;
  };
  struct Flags {
    bool skipped, nonfinite, spike;
  };
  static Flags wait_for_flags(const Look& look);
  struct Verdict {
    bool taken = true;
    std::string problem = {};
  };
  void count(bool is_skipped);
  Verdict judge(const Look& look, Progress& progress);
  std::vector<std::string> texts_of(const Look& look) const;

  const TrainConfig& config_;
  const LossGuard& guard_;
  Group& group_;
  std::function<std::string(const TextPlace&)> name_text_;
  std::vector<TrainedBatch> batches_;
  std::deque<Look> looks_;  // of the steps that nobody has looked at yet
  int64_t skipped_ = 0, skipped_in_row_ = 0;
};

}  // namespace blt
