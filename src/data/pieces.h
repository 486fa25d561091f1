// Patched sequences in pieces that a cut may lie between: patches, or single ids where there are no patches.
#pragma once

#include <cstdint>

#include "blt/batch.h"

namespace blt {

// The BOS is a piece by itself.
inline int64_t num_pieces(const PatchedSequence& sequence) {
  const auto size = static_cast<int64_t>(sequence.ids.size());
  if (sequence.starts.empty()) return size;
  return static_cast<int64_t>(sequence.starts.size()) - (sequence.starts.back() == size ? 1 : 0);
}

// Where piece p begins; p may be the number of pieces.
inline int64_t piece_start(const PatchedSequence& sequence, int64_t p) {
  if (sequence.starts.empty()) return p;
  return p < static_cast<int64_t>(sequence.starts.size()) ? sequence.starts[p]
                                                          : static_cast<int64_t>(sequence.ids.size());
}

// The first `pieces` pieces (fewer than there are); the id that comes next, beyond the cut, starts one. The last id takes no loss
// (REFERENCE section 16).
PatchedSequence head(const PatchedSequence& sequence, int64_t pieces);

// What follows the first `pieces` pieces, behind a BOS of its own.
PatchedSequence tail(const PatchedSequence& sequence, int64_t pieces);

}  // namespace blt
