// Stages that work on a block of their input at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/data/stage.h"

namespace blt {

// Reads a block, works on it as a whole, and hands out the results one by one. Its state is its input's at
// the beginning of the block, and how many results are gone: small whatever the block holds, and a resumed
// stage does the block's work again.
template <class In, class Out>
class BlockStage : public Stage<Out> {
 public:
  // A block ends with the item that brings its weight to `limit` or above.
  BlockStage(std::unique_ptr<Stage<In>> input, int64_t limit) : input_(std::move(input)), limit_(limit) {
    remember_block();
  }

  std::optional<Out> next() override {
    if (taken_ == results_.size()) {
      remember_block();
      fill();
      if (results_.empty()) return std::nullopt;
    }
    return std::move(results_[taken_++]);
  }

  void save(StateWriter& out) const override {
    if (taken_ == results_.size()) {  // between two blocks
      StateWriter input = out.section("input");
      input_->save(input);
      out.put("block", block_);
      out.put("taken", 0);
      return;
    }
    out.put("input", block_input_);
    out.put("block", block_ - 1);
    out.put("taken", static_cast<int64_t>(taken_));
  }

  void load(const StateReader& in) override {
    input_->load(in.section("input"));
    block_ = in.integer("block");
    results_.clear();
    taken_ = 0;
    const auto taken = static_cast<size_t>(in.integer("taken"));
    if (taken == 0) return;
    remember_block();
    fill();
    if (results_.size() <= taken)
      throw Error("the data is no longer what it was when this state was saved: a block became shorter");
    taken_ = taken;
  }

 protected:
  // What an item adds to its block.
  virtual int64_t weight(const In& item) const = 0;
  // As many results as inputs, or none for an empty block. index: of the block, from 0.
  virtual std::vector<Out> work(std::vector<In> block, int64_t index) = 0;

 private:
  void remember_block() {
    block_input_ = StateWriter();
    input_->save(block_input_);
  }
  void fill() {
    std::vector<In> block;
    for (int64_t total = 0; total < limit_;) {
      std::optional<In> item = input_->next();
      if (!item) break;
      total += weight(*item);
      block.push_back(std::move(*item));
    }
    taken_ = 0;
    results_ = work(std::move(block), block_++);
  }

  std::unique_ptr<Stage<In>> input_;
  int64_t limit_;
  StateWriter block_input_;  // the input's state at the beginning of the block
  int64_t block_ = 0;        // blocks begun
  std::vector<Out> results_;
  size_t taken_ = 0;
};

}  // namespace blt
