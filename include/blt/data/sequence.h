// The unit of everything after reading: of shuffling, of entropies and their cache, and of isolation in a
// batch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace blt {

// At most `sequence_bytes` bytes of one document (REFERENCE section 16).
struct Sequence {
  std::string bytes;  // text, any bytes, at least one
  bool starts_document = false;
  bool ends_document = false;

  // BOS, the bytes as ids, and EOS if `eos` and the document ends here.
  std::vector<int32_t> ids(bool eos) const;
};

}  // namespace blt
