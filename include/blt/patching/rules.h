// The rules themselves, bare (REFERENCE section 5): what a Patcher adds for every rule alike is in cut.h.
// Each is a copyable value that is called with the ids of one sequence in order, and answers whether the next
// id starts a patch.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "blt/batch.h"

namespace blt {

// Patches of `length` ids each.
struct StaticRule {
  int64_t length;
  int64_t count = 0;
  bool operator()(int32_t) { return ++count % length == 0; }
};

struct ByteRule {
  bool operator()(int32_t) const { return true; }
};

// A patch ends at the first of a run of space-like ids: ASCII that is neither digit nor letter, and the first
// bytes of UTF-8 sequences. Special ids end patches even within a run, and a run that follows one is not
// marked.
struct SpaceRule {
  bool after_space = false;
  bool first = true;
  bool operator()(int32_t id) {
    const bool space = kSpaceLike[static_cast<uint32_t>(id)];
    // Without branches, which text would mispredict at every other word.
    const bool mark = static_cast<bool>(static_cast<int>(id < kByteOffset) |
                                        (static_cast<int>(space) & static_cast<int>(!after_space)) |
                                        static_cast<int>(first));
    after_space = space;
    first = false;
    return mark;
  }

  static constexpr std::array<bool, kVocabulary> kSpaceLike = [] {
    std::array<bool, kVocabulary> table{};
    for (int32_t id = 0; id < kVocabulary; ++id) {
      const int32_t b = id - kByteOffset;
      table[id] =
          b < '0' || (b > '9' && b < 'A') || (b > 'Z' && b < 'a') || (b > 'z' && b < 0x80) || b >= 0xC0;
    }
    return table;
  }();
};

// The three entropy rules compare in float32, as the references do. The entropy after the first id is never
// compared.

// entropy > threshold.
struct ThresholdRule {
  float threshold;
  bool first = true;
  bool operator()(int32_t, float entropy) { return std::exchange(first, false) || entropy > threshold; }
};

// entropy > threshold, and it rises by more than `rise`. The third id starts a patch whatever its entropy and
// the fourth never does: the reference's formula says so, and published thresholds were measured with it.
struct ThresholdAddRule {
  float threshold;
  float rise;
  int64_t index = 0;
  float last = 0;
  bool operator()(int32_t, float entropy) {
    const float change = entropy - std::exchange(last, entropy);
    const int64_t i = index++;
    if (i < 2) return true;
    return i != 2 && change > rise && entropy > threshold;
  }
};

// The entropy rises by more than `threshold`. The third id always starts a patch, as above.
struct MonotonicRule {
  float threshold;
  int64_t index = 0;
  float last = 0;
  bool operator()(int32_t, float entropy) {
    const float change = entropy - std::exchange(last, entropy);
    return index++ < 2 || change > threshold;
  }
};

}  // namespace blt
