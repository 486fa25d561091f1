// As many batches on every rank.
#pragma once

#include <memory>
#include <optional>

#include "blt/batch.h"
#include "blt/data/stage.h"
#include "blt/train/group.h"

namespace blt {

// Batches of this rank's stage; when they have ended and another rank has more, one without targets, so that all ranks compute the same
// number of forward passes. All ranks call next() together, until it gives none. Not thread-safe.
class SameNumber : public Stage<Batch> {
 public:
  // group: outlives this. device: where the batches are.
  SameNumber(std::unique_ptr<Stage<Batch>> own, Group& group, at::Device device);
  std::optional<Batch> next() override;
  void save(StateWriter& out) const override { own_->save(out); }
  void load(const StateReader& in) override { own_->load(in); }

 private:
  std::unique_ptr<Stage<Batch>> own_;
  Group& group_;
  at::Device device_;
};

}  // namespace blt
