// The rules themselves, bare (REFERENCE section 5): what a Patcher adds for every rule alike is in cut.h.
// Each is a copyable value that is called with the ids of one sequence in order, and answers whether the next
// id starts a patch.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "blt/batch.h"
#include "blt/patching/space_like.h"

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

// A patch ends at the first of a run of space-like ids. Special ids end patches even within a run, and a run that follows one is not
// marked.
struct SpaceRule {
  bool after_space = false;
  bool first = true;
  bool operator()(int32_t id) {
    const bool space = is_space_like(static_cast<uint32_t>(id - kByteOffset));  // special ids too
    const bool mark = id < kByteOffset || (space && !after_space) || first;
    after_space = space;
    first = false;
    return mark;
  }
  // The same for a whole sequence (cut.h).
  void mark(std::span<const int32_t> ids, uint8_t* marks) const;
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
