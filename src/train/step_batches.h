// What the steps of a training read.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/batch.h"
#include "blt/data/stage.h"

namespace blt {

// Reads a step ahead: before a step ends, it is known whether the next one has something to read, so that all ranks can end in good order
// where one of them has nothing. Not thread-safe.
class StepBatches {
 public:
  explicit StepBatches(std::unique_ptr<Stage<Batch>> input) : input_(std::move(input)) {}

  // Those of step `step`, from 1. Throws blt::Error where they cannot be read.
  std::vector<Batch> take(int64_t count, int64_t step);
  // Has those of the next take() ready.
  void read_ahead(int64_t count, int64_t step);
  // Why they are not; empty: they are, or were not asked for.
  std::string failure() const { return ahead_ && ahead_->failure ? ahead_->failure->what() : ""; }

  // The input's place behind what was taken.
  void save(StateWriter& out) const;
  void load(const StateReader& in);

 private:
  struct Read {
    StateWriter from = {};  // the input's state before
    std::vector<Batch> batches = {};
    std::optional<Error> failure = {};  // instead of batches
  };
  Read read(int64_t count, int64_t step);

  std::unique_ptr<Stage<Batch>> input_;
  std::optional<Read> ahead_;
};

}  // namespace blt
