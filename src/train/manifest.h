// What the files of a checkpoint held when they were written, so that it is seen when they hold something else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "blt/train/group.h"

namespace blt {

// manifest.json of a checkpoint (docs/formats.md).
constexpr const char* kManifestFile = "manifest.json";

// Bytes [begin, end) of a file, as they were written.
struct WrittenRange {
  uint64_t begin = 0, end = 0;
  int64_t rank = 0;         // that wrote them
  std::string tensor = {};  // that they are of; empty: of none
  uint64_t checksum = 0;    // XXH3-64, seed 0
};
// By the file's name.
using WrittenRanges = std::map<std::string, std::vector<WrittenRange>>;

uint64_t range_checksum(const void* data, uint64_t num_bytes);

// As text, for another rank.
std::string to_json(const WrittenRanges& ranges);
// Throws blt::Error, naming `source`, where it is none.
WrittenRanges written_ranges(std::string_view json, const std::string& source);

// Writes the manifest of the ranges of all ranks, and of the folder's other files, which it reads for that. Throws blt::Error where the
// ranges of a file leave holes or overlap, or the disk does not take it.
void write_manifest(const std::filesystem::path& folder, WrittenRanges ranges);

// Reads the files that the manifest lists, each rank its share of them; all ranks call this with the same folder. Throws blt::Error, on all
// ranks the same, that names the file and what is wrong with it: no manifest, a file that is missing or has another size, bytes that are
// not those that were written.
void check_files(const std::filesystem::path& folder, Group& group);

}  // namespace blt
