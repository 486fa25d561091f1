// Reads the documents of one file.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "blt/base/error.h"
#include "blt/data/documents.h"
#include "blt/data/sequence.h"
#include "blt/data/state.h"
#include "data/line_reader.h"

namespace blt {

// One document is at fault, and those after it are not.
class DocumentError : public Error {
 public:
  using Error::Error;
};

// Not thread-safe.
class DocumentReader {
 public:
  virtual ~DocumentReader() = default;

  // The next at most `max_bytes` bytes of a document, and their place in the file; nullopt at its end. Throws DocumentError for a document that is broken:
  // the next call goes on behind it; any other blt::Error for a file that is.
  virtual std::optional<Sequence> next(size_t max_bytes) = 0;
  virtual void save(StateWriter& out) const = 0;
  // On a fresh reader.
  virtual void load(const StateReader& in) = 0;

  // text_field: the key of JSON Lines, or the column of Parquet, that holds the text. longest_line: of JSON Lines, what is held of a line
  // (line_reader.h).
  static std::unique_ptr<DocumentReader> open(const DataFile& file, const std::string& text_field,
                                              size_t longest_line = LineReader::kLongestHeld);
};

}  // namespace blt
