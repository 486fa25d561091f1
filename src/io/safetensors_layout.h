// Where the tensors of a safetensors file lie that is to be written: names, dtypes and shapes say it all.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "blt/io/safetensors.h"

namespace blt {

struct SafetensorsLayout {
  std::string header;                     // the file's first bytes, up to the data
  std::vector<SafetensorsEntry> entries;  // in the order of their bytes
  uint64_t file_bytes = 0;
};

// tensors: `offset` and `num_bytes` are not read. First come those of wide dtypes, so that each is aligned; among equals the given order
// holds. Throws c10::Error for a dtype that libblt does not write, and for a name that is there twice.
SafetensorsLayout lay_out(std::vector<SafetensorsEntry> tensors,
                          const std::map<std::string, std::string>& metadata);

}  // namespace blt
