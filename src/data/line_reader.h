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

// Keeps one line in memory, and what was read behind it; of a line that is longer than `longest_held` a part at a time. Not thread-safe.
class LineReader {
 public:
  static constexpr size_t kPadding =
      64;  // bytes behind a line that may be read, of any value: parsers look ahead
  static constexpr size_t kLongestHeld = size_t{16} << 20;

  explicit LineReader(const std::filesystem::path& path, size_t longest_held = kLongestHeld);

  // The line behind the current one without its line break, or the first longest_held bytes of a longer one; nullopt at the
  // end. Valid until the next call of any of these. Throws blt::Error as ByteStream does.
  std::optional<std::string_view> next();
  // Whether next() gave the whole line.
  bool is_whole() const { return whole_; }
  // Of a line that is not whole, the bytes behind what was handed out: at most longest_held, none when the line is over.
  std::string_view more();
  // Goes to the end of the line.
  void pass_over();

  int64_t number() const { return number_; }  // of the current line, from 1
  uint64_t begin() const { return begin_; }   // its offset in the file, decompressed
  uint64_t end() const { return end_; }  // that of the line after it, once all of the line was handed out
  size_t longest_held() const { return longest_held_; }

  // On a fresh reader: goes to the line behind `number`, which begins at `offset`.
  void skip(uint64_t offset, int64_t number);

 private:
  // What is left of the current line, as far as it is looked for: more than longest_held bytes are not told apart.
  struct Part {
    size_t length = 0;
    bool ends_in_break = false;  // else at the end of the file, or beyond longest_held
  };
  Part find_break();
  bool refill();  // false at the end of the file
  std::string_view take(const Part& part);

  std::unique_ptr<ByteStream> stream_;
  size_t longest_held_;
  size_t read_bytes_;   // that are asked for at once
  std::string buffer_;  // what was read and not handed out: [used_, filled_), and kPadding bytes
  size_t used_ = 0, filled_ = 0;
  bool whole_ = true, over_ = true;  // the current line: given by next(), handed out to its end
  int64_t number_ = 0;
  uint64_t begin_ = 0, end_ = 0;  // end_: what was handed out
};

}  // namespace blt
