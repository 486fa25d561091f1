// The batches of a validation, of ranks that have different numbers of them and may be asked to stop.
#pragma once

#include <memory>
#include <optional>

#include "blt/batch.h"
#include "blt/data/stage.h"
#include "blt/train/group.h"

namespace blt {

// A rank whose own batches have run out stays until those of all ranks have: so all learn at the same batch that one of them was asked to stop
// (base/signals.h), and where a forward pass is a transfer of all ranks, it goes on with batches that count for nothing. Ranks call next() together.
class ValidationBatches : public Stage<Batch> {
 public:
  // group: outlives this. device: where the batches are. compute_together: all ranks make the same number of forward passes.
  ValidationBatches(std::unique_ptr<Stage<Batch>> own, Group& group, at::Device device,
                    bool compute_together);
  std::optional<Batch> next() override;
  void save(StateWriter& out) const override { own_->save(out); }
  void load(const StateReader& in) override { own_->load(in); }

  bool was_stopped() const { return was_stopped_; }  // before its end

 private:
  std::unique_ptr<Stage<Batch>> own_;
  Group& group_;
  at::Device device_;
  bool compute_together_;
  bool was_stopped_ = false;
};

}  // namespace blt
