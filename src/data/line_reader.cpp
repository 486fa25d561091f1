#include "data/line_reader.h"

#include <fmt/format.h>

#include <cstring>

#include "blt/base/error.h"

namespace blt {
namespace {

constexpr size_t kReadBytes = 1 << 18;
constexpr size_t kLongestLine = size_t{1} << 30;

}  // namespace

LineReader::LineReader(const std::filesystem::path& path)
    : path_(path), stream_(ByteStream::open(path)), buffer_(kReadBytes + kPadding, '\0') {}

std::optional<std::string_view> LineReader::next() {
  begin_ = end_;
  size_t searched = 0;  // bytes of the line in which there is no line break
  while (true) {
    const char* line = buffer_.data() + used_;
    const size_t size = filled_ - used_;
    const auto* line_break = static_cast<const char*>(std::memchr(line + searched, '\n', size - searched));
    if (line_break == nullptr) {
      searched = size;
      if (searched > kLongestLine)
        throw Error(fmt::format("{}:{}: a line of more than 1 GiB; cut the document into several",
                                path_.string(), number_ + 1));
      if (refill()) continue;
      if (size == 0) return std::nullopt;
    }
    const size_t length = line_break == nullptr ? size : static_cast<size_t>(line_break - line);
    const size_t taken = length + (line_break == nullptr ? 0 : 1);
    ++number_;
    end_ = begin_ + taken;
    const std::string_view result(buffer_.data() + used_, length);
    used_ += taken;
    return result;
  }
}

void LineReader::skip(uint64_t offset, int64_t number) {
  stream_->skip(offset);
  number_ = number;
  begin_ = end_ = offset;
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
