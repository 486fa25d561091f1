// Stages that work on a block of their input at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/data/in_order.h"
#include "blt/data/stage.h"

namespace blt {

// Reads a block, works on it as a whole, and hands out the results one by one. Its state is its input's at the beginning of the block,
// and how many results are gone: small whatever the block holds, and a resumed stage does the block's work again. What comes out, and
// the state, do not depend on the number of threads; and where the order of results is that of the inputs, a state also loads under
// another limit.
template <class In, class Out>
class BlockStage : public Stage<Out> {
 public:
  struct Options {
    int64_t limit = 1;    // a block ends with the item that brings its weight to this or above
    int64_t threads = 0;  // that read and work ahead; 0: the caller's own, when a block is asked for
    int64_t ahead = 1;    // with threads: blocks that wait or are being worked on, at most
    bool in_input_order =
        true;  // result i is that of item i; else a state holds for blocks of its own limit alone
  };
  // What an item adds to its block.
  using Weight = std::function<int64_t(const In&)>;
  // As many results as inputs. index: of the block, from 0. Called by several threads at once where there are some.
  using Work = std::function<std::vector<Out>(std::vector<In> block, int64_t index)>;

  BlockStage(std::unique_ptr<Stage<In>> input, Options options, Weight weight, Work work)
      : input_(std::move(input)), options_(options), weight_(std::move(weight)), work_(std::move(work)) {
    start_over(0);
  }

  std::optional<Out> next() override {
    while (taken_ == current_.results.size()) {
      std::optional<Worked> block = next_block();
      if (!block) return std::nullopt;
      current_ = std::move(*block);
      taken_ = 0;
    }
    return std::move(current_.results[taken_++]);
  }

  void save(StateWriter& out) const override {
    const bool inside = taken_ < current_.results.size();
    out.put("input", inside ? current_.before : current_.after);
    out.put("block", current_.index + (inside ? 0 : 1));
    out.put("taken", inside ? static_cast<int64_t>(taken_) : 0);
  }

  void load(const StateReader& in) override {
    ahead_.reset();
    input_->load(in.section("input"));
    start_over(in.integer("block"));
    auto taken = static_cast<size_t>(in.integer("taken"));
    if (taken == 0) return;
    // The block may have had another limit when the state was saved: then it is a part of one here, or several.
    while (std::optional<Worked> block = next_block()) {
      current_ = std::move(*block);
      if (taken < current_.results.size()) {
        taken_ = taken;
        return;
      }
      if (!options_.in_input_order) break;
      taken -= current_.results.size();
    }
    throw Error("the data is no longer what it was when this state was saved: it became shorter");
  }

 protected:
  // Blocks that are ready to be handed out.
  int64_t ready() const { return ahead_ ? ahead_->ready() : 0; }

 private:
  struct Read {
    std::vector<In> items;
    int64_t index = 0;
    StateWriter before, after;  // the input's state around the block
  };
  struct Worked {
    std::vector<Out> results;
    int64_t index = 0;
    StateWriter before, after;
  };

  StateWriter input_state() const {
    StateWriter state;
    input_->save(state);
    return state;
  }
  void start_over(int64_t next_index) {
    after_last_read_ = input_state();
    next_index_ = next_index;
    current_ = {.results = {}, .index = next_index - 1, .before = {}, .after = after_last_read_};
    taken_ = 0;
  }

  std::optional<Read> read() {
    Read block;
    for (int64_t total = 0; total < options_.limit;) {
      std::optional<In> item = input_->next();
      if (!item) break;
      total += weight_(*item);
      block.items.push_back(std::move(*item));
    }
    if (block.items.empty()) return std::nullopt;
    block.index = next_index_++;
    block.before = after_last_read_;
    block.after = after_last_read_ = input_state();
    return block;
  }
  Worked work(Read block) const {
    return {.results = work_(std::move(block.items), block.index),
            .index = block.index,
            .before = block.before,
            .after = block.after};
  }
  std::optional<Worked> next_block() {
    if (options_.threads > 0) {
      if (!ahead_)
        ahead_ = std::make_unique<InOrder<Read, Worked>>(
            typename InOrder<Read, Worked>::Options{.threads = options_.threads, .ahead = options_.ahead},
            [this] { return read(); }, [this](Read block) { return work(std::move(block)); });
      return ahead_->next();
    }
    std::optional<Read> block = read();
    if (!block) return std::nullopt;
    return work(std::move(*block));
  }

  std::unique_ptr<Stage<In>> input_;
  Options options_;
  Weight weight_;
  Work work_;
  StateWriter after_last_read_;  // of input_
  int64_t next_index_ = 0;       // of the block that is read next
  Worked current_;               // that is being handed out
  size_t taken_ = 0;             // results of it that are gone
  std::unique_ptr<InOrder<Read, Worked>>
      ahead_;  // last: its threads use the rest. Made when the first block is asked for
};

}  // namespace blt
