#include "data/line_reader.h"

#include <algorithm>
#include <cstring>

namespace blt {
namespace {

constexpr size_t kReadBytes = 1 << 18;

}  // namespace

LineReader::LineReader(const std::filesystem::path& path, size_t longest_held)
    : stream_(ByteStream::open(path)), longest_held_(longest_held), buffer_(kReadBytes + kPadding, '\0') {}

std::optional<std::string_view> LineReader::next() {
  pass_over();
  begin_ = end_;
  size_t searched = 0;  // bytes of the line in which there is no line break
  while (true) {
    const char* line = buffer_.data() + used_;
    const size_t size = filled_ - used_;
    const auto* line_break = static_cast<const char*>(std::memchr(line + searched, '\n', size - searched));
    if (line_break == nullptr && size <= longest_held_ && refill()) {
      searched = size;
      continue;
    }
    if (line_break == nullptr && size == 0) return std::nullopt;
    const size_t length = line_break == nullptr ? size : static_cast<size_t>(line_break - line);
    ++number_;
    whole_ = over_ = length <= longest_held_;
    return take(std::min(length, longest_held_), whole_ && line_break != nullptr);
  }
}

std::string_view LineReader::more() {
  if (over_) return {};
  if (used_ == filled_ && !refill()) {
    over_ = true;
    return {};
  }
  const char* part = buffer_.data() + used_;
  const size_t size = std::min(filled_ - used_, longest_held_);
  const auto* line_break = static_cast<const char*>(std::memchr(part, '\n', size));
  over_ = line_break != nullptr;
  return take(over_ ? static_cast<size_t>(line_break - part) : size, over_);
}

void LineReader::pass_over() {
  while (!over_) more();
}

void LineReader::skip(uint64_t offset, int64_t number) {
  stream_->skip(offset);
  number_ = number;
  begin_ = end_ = offset;
}

std::string_view LineReader::take(size_t length, bool with_break) {
  const std::string_view result(buffer_.data() + used_, length);
  const size_t taken = length + (with_break ? 1 : 0);
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
  if (buffer_.size() < filled_ + kReadBytes + kPadding) buffer_.resize(2 * filled_ + kReadBytes + kPadding);
  const size_t count = stream_->read(buffer_.data() + filled_, buffer_.size() - kPadding - filled_);
  filled_ += count;
  return count > 0;
}

}  // namespace blt
