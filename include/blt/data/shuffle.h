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
  Shuffle(std::unique_ptr<Stage<T>> input, int64_t block, uint64_t seed, const std::string& name)
      : BlockStage<T, T>(
            std::move(input), {.limit = block, .in_input_order = false}, [](const T&) { return 1; },
            [seed, name](std::vector<T> items, int64_t index) {
              Rng(seed, name + ".block" + std::to_string(index)).shuffle(items);
              return items;
            }) {}
};

}  // namespace blt
