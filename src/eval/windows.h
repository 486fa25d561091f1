// Sequences that see what came before them in their document.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "blt/data/sequence.h"
#include "blt/data/stage.h"

namespace blt {

struct Window {
  std::vector<int32_t> ids;  // BOS, at most context_bytes earlier bytes, then the sequence's own
  int64_t first = 1;         // where its own begin
  bool starts_document = false;
};

// Turns sequences into windows, one each. Keeps a reference to `sequences`, which must outlive it.
class Windows {
 public:
  Windows(Stage<Sequence>& sequences, int64_t context_bytes)
      : sequences_(sequences), context_bytes_(context_bytes) {}

  std::optional<Window> next();

 private:
  Stage<Sequence>& sequences_;
  int64_t context_bytes_;
  std::string context_;  // the last bytes of the document so far
};

}  // namespace blt
