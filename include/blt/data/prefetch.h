// Has things ready before they are asked for.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "blt/data/in_order.h"
#include "blt/data/stage.h"

namespace blt {

// Runs its input in a thread of its own, up to `depth` items ahead. Every item carries the input's state behind it, so the state of this
// stage is its input's, as of what was handed out, and does not depend on the depth.
template <class T>
class Prefetch : public Stage<T> {
 public:
  // depth: items that wait, at most; 0: no thread, an item is made when it is asked for.
  Prefetch(std::unique_ptr<Stage<T>> input, int64_t depth) : input_(std::move(input)), depth_(depth) {
    input_->save(state_);
  }

  std::optional<T> next() override {
    std::optional<Item> item = depth_ > 0 ? ahead().next() : make();
    if (!item) return std::nullopt;
    state_ = item->state;
    return std::move(item->value);
  }
  void save(StateWriter& out) const override { out.assign(state_); }
  void load(const StateReader& in) override {
    ahead_.reset();
    input_->load(in);
    state_ = StateWriter();
    input_->save(state_);
  }

  // Items that are ready.
  int64_t ready() const { return ahead_ ? ahead_->ready() : 0; }

 private:
  struct Item {
    T value;
    StateWriter state;  // of the input, behind it
  };
  std::optional<Item> make() {
    std::optional<T> value = input_->next();
    if (!value) return std::nullopt;
    Item item{.value = std::move(*value), .state = {}};
    input_->save(item.state);
    return item;
  }
  InOrder<Item, Item>& ahead() {
    if (!ahead_)
      ahead_ = std::make_unique<InOrder<Item, Item>>(
          typename InOrder<Item, Item>::Options{.threads = 1, .ahead = depth_}, [this] { return make(); },
          [](Item item) { return item; });
    return *ahead_;
  }

  std::unique_ptr<Stage<T>> input_;
  int64_t depth_;
  StateWriter state_;  // of the input, behind what was handed out
  std::unique_ptr<InOrder<Item, Item>>
      ahead_;  // last: its thread uses the rest. Made when the first item is asked for
};

}  // namespace blt
