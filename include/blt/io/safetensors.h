// Tensors in files: the safetensors format (docs/formats.md has the layout).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace blt {

// One tensor of a file.
struct SafetensorsEntry {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> sizes;
  uint64_t offset = 0;  // of its first byte in the file
  uint64_t num_bytes = 0;
};

// A file of tensors, mapped into memory. The constructor reads and checks the whole header: afterwards every
// entry lies inside the file and has as many bytes as its shape and dtype want. Throws blt::Error that names
// the file, the offset and the tensor: a file that is missing, cut short anywhere or has bytes to spare, a
// broken header, an unknown dtype, ranges that overlap, leave holes or leave the file, repeated names.
//
// Thread-safe. The file may be removed or replaced by another (rename) meanwhile; one that is made shorter in
// place takes the process with it, as with every mapped file.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  // in the order of their bytes
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const SafetensorsEntry* find(std::string_view name) const;  // null when there is none

  // The bytes of the file, without a copy where the file aligns them for their dtype (bool is always copied:
  // other bytes than 0 and 1 become 1). The tensor keeps the mapping alive. What is written into it is
  // private to the process. Throws blt::Error when there is no such tensor.
  at::Tensor tensor(std::string_view name) const;

 private:
  struct Mapping;

  std::filesystem::path path_;
  std::shared_ptr<const Mapping> mapping_;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
};

// Writes the tensors, first those of wide dtypes, so that each is aligned; among equals in the given order.
// The file is whole or absent: a temporary name, synced, renamed. Tensors may lie on any device and have any
// strides. Dtypes: float64, float32, float16, bfloat16, int64, int32, int16, int8, uint8, bool; others, and
// names that repeat, are a c10::Error. Throws blt::Error when the disk does not take it.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace blt
