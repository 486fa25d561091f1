// The lines of a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "data/byte_stream.h"

namespace blt {

// Keeps one line in memory, and what was read behind it. Not thread-safe.
class LineReader {
 public:
  static constexpr size_t kPadding =
      64;  // bytes behind a line that may be read, of any value: parsers look ahead

  explicit LineReader(const std::filesystem::path& path);

  // Without its line break; nullopt at the end. Valid until the next call. Throws blt::Error as ByteStream does, and for a line of more
  // than 1 GiB.
  std::optional<std::string_view> next();

  int64_t number() const { return number_; }  // of the current line, from 1
  uint64_t begin() const { return begin_; }   // its offset in the file, decompressed
  uint64_t end() const { return end_; }       // that of the line after it

  // On a fresh reader: goes to the line behind `number`, which begins at `offset`.
  void skip(uint64_t offset, int64_t number);

 private:
  bool refill();  // false at the end of the file

  std::filesystem::path path_;
  std::unique_ptr<ByteStream> stream_;
  std::string buffer_;  // what was read and not handed out: [used_, filled_), and kPadding bytes
  size_t used_ = 0, filled_ = 0;
  int64_t number_ = 0;
  uint64_t begin_ = 0, end_ = 0;
};

}  // namespace blt
