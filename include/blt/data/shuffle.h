// Changes the order of things, within blocks that fit in memory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/rng.h"
#include "blt/data/block_stage.h"

namespace blt {

// Reads `block` items ahead (at least 1) and hands them out in a random order, which depends on the seed, the
// name and the block's number alone.
template <class T>
class Shuffle : public BlockStage<T, T> {
 public:
  Shuffle(std::unique_ptr<Stage<T>> input, int64_t block, uint64_t seed, std::string name)
      : BlockStage<T, T>(std::move(input), block), seed_(seed), name_(std::move(name)) {}

 protected:
  int64_t weight(const T&) const override { return 1; }
  std::vector<T> work(std::vector<T> block, int64_t index) override {
    Rng(seed_, name_ + ".block" + std::to_string(index)).shuffle(block);
    return block;
  }

 private:
  uint64_t seed_;
  std::string name_;
};

}  // namespace blt
