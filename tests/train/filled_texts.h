// Texts that fill batches of one size differently.
#pragma once

#include <vector>

#include "blt/batch.h"
#include "blt/data/filled_batch.h"
#include "train/small_model.h"

namespace blt::testing {

constexpr FilledSizes kSizes{.ids = 84, .patches = 28, .sequences = 8, .sequence_ids = 42};

// Of other lengths, numbers and contents in each, with patches from a byte to nearly a sequence; one of them has an id that is no byte.
inline std::vector<std::vector<PatchedSequence>> texts() {
  PatchedSequence long_patch = sequence("abcabcabcabcabcabcabcabcabcabcabcabcab");
  long_patch.starts = {0, 1, 4};
  PatchedSequence whole = sequence("jumps over the lazy dog");
  whole.ids.push_back(kEos);
  return {{sequence("abcabcabcabcabc"), sequence("xyxyxyxyxy")},
          {sequence("a"), sequence("b"), sequence("the quick brown fox"), sequence("c")},
          {long_patch},
          {whole, sequence("zzzzzzzz"), sequence("ab")},
          {sequence("q")}};
}

}  // namespace blt::testing
