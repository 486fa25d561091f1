// The unit of everything after reading: of shuffling, of entropies and their cache, and of isolation in a
// batch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "blt/text_place.h"

namespace blt {

// At most `sequence_bytes` bytes of one document (REFERENCE section 16).
struct Sequence {
  std::string bytes;  // text, any bytes, at least one
  bool starts_document = false;
  bool ends_document = false;
  TextPlace place = {};  // where it was read
  // Where it stands in the order that all ranks share (split.h).
  int64_t text_before = 0;  // bytes of text that came before it, on all ranks
  int64_t patches_done =
      0;  // of its beginning, that another rank has handed out (pack.h): the rest opens with a BOS of its own

  // BOS, the bytes as ids, and EOS if `eos` and the document ends here.
  std::vector<int32_t> ids(bool eos) const;
};

}  // namespace blt
