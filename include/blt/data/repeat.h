// Goes over the data again and again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "blt/data/stage.h"

namespace blt {

// Makes a stage for every pass, and hands out what it produces; when it ends, the next pass begins. Ends when
// a pass is empty.
template <class T>
class Repeat : public Stage<T> {
 public:
  using Make = std::function<std::unique_ptr<Stage<T>>(int64_t pass)>;
  explicit Repeat(Make make) : make_(std::move(make)), input_(make_(0)) {}

  std::optional<T> next() override {
    std::optional<T> item = input_->next();
    if (item) empty_ = false;
    if (item || empty_) return item;
    empty_ = true;
    input_ = make_(++pass_);
    return next();
  }
  void save(StateWriter& out) const override {
    out.put("pass", pass_);
    out.put("empty", empty_ ? 1 : 0);
    StateWriter input = out.section("input");
    input_->save(input);
  }
  void load(const StateReader& in) override {
    pass_ = in.integer("pass");
    empty_ = in.integer("empty") != 0;
    input_ = make_(pass_);
    input_->load(in.section("input"));
  }

 private:
  Make make_;
  int64_t pass_ = 0;
  bool empty_ = true;  // this pass, so far
  std::unique_ptr<Stage<T>> input_;
};

}  // namespace blt
