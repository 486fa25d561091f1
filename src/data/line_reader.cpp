#include "data/line_reader.h"

#include <algorithm>
#include <cstring>

namespace blt {
namespace {

constexpr size_t kMostRead = 1 << 18;

}  // namespace

LineReader::LineReader(const std::filesystem::path& path, size_t longest_held)
    : stream_(ByteStream::open(path)),
      longest_held_(longest_held),
      read_bytes_(std::min(kMostRead, longest_held)),
      buffer_(read_bytes_ + kPadding, '\0') {}

std::optional<std::string_view> LineReader::next() {
  pass_over();
  begin_ = end_;
  const Part part = find_break();
  if (part.length == 0 && !part.ends_in_break) return std::nullopt;
  ++number_;
  whole_ = part.length <= longest_held_;
  return take(part);
}

std::string_view LineReader::more() { return over_ ? std::string_view() : take(find_break()); }

void LineReader::pass_over() {
  while (!over_) more();
}

void LineReader::skip(uint64_t offset, int64_t number) {
  stream_->skip(offset);
  number_ = number;
  begin_ = end_ = offset;
}

// Parts of a line are as long as they may be, however much a read gave: what a broken line gives before its error depends on the line alone.
LineReader::Part LineReader::find_break() {
  size_t searched = 0;  // bytes in which there is no line break
  while (true) {
    const char* line = buffer_.data() + used_;
    const size_t size = filled_ - used_;
    const auto* line_break = static_cast<const char*>(std::memchr(line + searched, '\n', size - searched));
    if (line_break != nullptr) return {static_cast<size_t>(line_break - line), true};
    if (size > longest_held_ || !refill()) return {size, false};
    searched = size;
  }
}

std::string_view LineReader::take(const Part& part) {
  over_ = part.length <= longest_held_;
  const std::string_view result(buffer_.data() + used_, std::min(part.length, longest_held_));
  const size_t taken = result.size() + (over_ && part.ends_in_break ? 1 : 0);
  used_ += taken;
  end_ += taken;
  return result;
}

bool LineReader::refill() {
  if (used_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + used_, filled_ - used_);
    filled_ -= used_;
    used_ = 0;
  }
  if (buffer_.size() < filled_ + read_bytes_ + kPadding) buffer_.resize(2 * filled_ + read_bytes_ + kPadding);
  const size_t count = stream_->read(buffer_.data() + filled_, buffer_.size() - kPadding - filled_);
  filled_ += count;
  return count > 0;
}

}  // namespace blt
