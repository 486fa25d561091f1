// A small training that ranks share, and that goes on from its checkpoints.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/io/model_dir.h"
#include "blt/train/trainer.h"
#include "train/divided_training.h"
#include "train/saved_model.h"
#include "train/small_model.h"

namespace blt::testing {

// A few batches over and over, others on each rank, from any place on.
class PlacedBatches : public Stage<Batch> {
 public:
  static constexpr const char* kUnreadable = "text.jsonl.gz@1234: the archive is damaged";

  // broken: the batch, from 0, that cannot be read.
  explicit PlacedBatches(int64_t rank, std::optional<int64_t> broken = {}) : broken_(broken) {
    const std::string text = "abcabc xyxy the quick brown fox jumps over the lazy dog";
    for (int64_t i = 0; i < 5; ++i) {
      const auto from = static_cast<size_t>(5 * rank + 3 * i), length = static_cast<size_t>(9 + 2 * i + rank);
      batches_.push_back(
          Batch::pack({sequence(text.substr(from, length)), sequence(text.substr(from / 2, 7))}));
    }
  }
  std::optional<Batch> next() override {
    if (next_ == broken_) throw Error(kUnreadable);
    return batches_[static_cast<size_t>(next_++) % batches_.size()];
  }
  void save(StateWriter& out) const override { out.put("next", next_); }
  void load(const StateReader& in) override { next_ = in.integer("next"); }

 private:
  std::vector<Batch> batches_;
  std::optional<int64_t> broken_;
  int64_t next_ = 0;
};

struct ResumableTraining {
  Blt model{nullptr};
  std::unique_ptr<Trainer> trainer;

  // Of the steps that are left.
  std::vector<double> losses(int64_t steps) const {
    std::vector<double> result;
    while (trainer->step() < steps) result.push_back(trainer->train_step().loss.item<double>());
    return result;
  }
};

// group: null for one alone. from: a checkpoint to go on from; empty: none.
inline ResumableTraining resumable_training(const std::shared_ptr<Group>& group, const TrainConfig& config,
                                            const Division& division, const std::filesystem::path& output,
                                            const std::filesystem::path& from = {},
                                            std::optional<int64_t> broken = {},
                                            std::function<std::unique_ptr<Stage<Batch>>()> valid = {}) {
  ResumableTraining training;
  training.model = new_model();
  if (!from.empty()) load_weights(from, training.model, EntropyModel(nullptr));
  TrainerParts parts;
  parts.model = trainable(training.model);
  parts.train = std::make_unique<PlacedBatches>(group ? group->rank() : 0, broken);
  parts.valid = std::move(valid);
  parts.group = group;
  parts.parallel = divided(division);
  parts.output = output;
  std::filesystem::create_directories(output);
  parts.model_to_save = saved_model(training.model);
  training.trainer = std::make_unique<Trainer>(config, std::move(parts));
  if (!from.empty()) training.trainer->resume(from);
  return training;
}

}  // namespace blt::testing
