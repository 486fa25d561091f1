// Where some text was read.
#pragma once

#include <cstdint>

namespace blt {

// Goes along with a sequence, for messages about it. Documents sets it, and name_of (blt/data/documents.h) reads it.
struct TextPlace {
  int32_t source = -1;  // of the data's sources, from 0; -1: not known
  int32_t file = 0;     // of that source's files (find_files), from 0
  int64_t line = 0;  // in a file of JSON lines, or row of a Parquet file, from 1; 0: the file is one document
  int64_t offset = 0;  // bytes of the document's text that come before
};

}  // namespace blt
