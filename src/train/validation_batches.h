// The batches of a validation, of ranks that have different numbers of them, may be asked to stop, and may come to text that cannot be read.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "blt/batch.h"
#include "blt/data/stage.h"
#include "blt/train/group.h"

namespace blt {

// A rank whose own batches have run out stays until those of all ranks have: so all learn at the same batch that one of them was asked to stop
// (base/signals.h) or cannot read its text, and where a forward pass is a transfer of all ranks, it goes on with batches that count for nothing. Ranks call next() together.
class ValidationBatches : public Stage<Batch> {
 public:
  // own: makes those of this rank. group: outlives this. device: where the batches are. compute_together: all ranks make the same number of forward
  // passes.
  ValidationBatches(std::function<std::unique_ptr<Stage<Batch>>()> own, Group& group, at::Device device,
                    bool compute_together);
  std::optional<Batch> next() override;
  // It is read once, from its beginning.
  void save(StateWriter&) const override {}
  void load(const StateReader&) override {}

  // Before its end, on any rank.
  bool was_stopped() const { return was_stopped_; }
  bool has_failed() const { return has_failed_; }
  const std::string& failure() const { return failure_; }  // of this rank; empty: none

 private:
  std::optional<Batch> next_own();

  std::function<std::unique_ptr<Stage<Batch>>()> make_;
  std::unique_ptr<Stage<Batch>> own_;
  Group& group_;
  at::Device device_;
  bool compute_together_;
  bool was_stopped_ = false, has_failed_ = false;
  std::string failure_;
};

}  // namespace blt
