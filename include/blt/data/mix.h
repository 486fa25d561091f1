// Several sources as one stream.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "blt/data/metrics.h"
#include "blt/data/sequence.h"
#include "blt/data/stage.h"

namespace blt {

// Takes the next sequence from the source that is furthest behind its share of the bytes, so shares hold at
// every moment to within a sequence, and no chance is involved. Ends when a source ends.
class Mix : public Stage<Sequence> {
 public:
  struct Input {
    std::unique_ptr<Stage<Sequence>> stage;
    double weight = 1.0;  // above 0
  };
  // At least one input. metrics: where the documents of each are counted; may be null.
  explicit Mix(std::vector<Input> inputs, std::shared_ptr<LoaderMetrics> metrics = nullptr);

  std::optional<Sequence> next() override;
  void save(StateWriter& out) const override;
  void load(const StateReader& in) override;

 private:
  std::vector<Input> inputs_;
  std::vector<int64_t> bytes_, documents_;  // handed out, of each input
  std::shared_ptr<LoaderMetrics> metrics_;
};

// One after the other, each to its end.
class Concatenate : public Stage<Sequence> {
 public:
  explicit Concatenate(std::vector<std::unique_ptr<Stage<Sequence>>> inputs);

  std::optional<Sequence> next() override;
  void save(StateWriter& out) const override;
  void load(const StateReader& in) override;

 private:
  std::vector<std::unique_ptr<Stage<Sequence>>> inputs_;
  size_t current_ = 0;
};

}  // namespace blt
