#include "data/document_reader.h"

#include <fmt/format.h>

#include <cstring>

#include "data/byte_stream.h"
#include "data/json_line.h"

namespace blt {
namespace {

// A file that is one document.
class TextReader : public DocumentReader {
 public:
  explicit TextReader(const std::filesystem::path& path) : stream_(ByteStream::open(path)) {}

  std::optional<Sequence> next(size_t max_bytes) override {
    Sequence result;
    result.starts_document = offset_ == 0;
    result.bytes.resize(max_bytes + 1);  // one more byte tells whether the document goes on
    size_t size = 0;
    if (ahead_) result.bytes[size++] = *ahead_;
    size += stream_->read(result.bytes.data() + size, max_bytes + 1 - size);
    result.ends_document = size <= max_bytes;
    ahead_.reset();
    if (!result.ends_document) ahead_ = result.bytes[--size];
    result.bytes.resize(size);
    offset_ += size;
    if (size == 0) return std::nullopt;
    return result;
  }

  void save(StateWriter& out) const override { out.put("offset", static_cast<int64_t>(offset_)); }
  void load(const StateReader& in) override {
    offset_ = static_cast<uint64_t>(in.integer("offset"));
    stream_->skip(offset_);
  }

 private:
  std::unique_ptr<ByteStream> stream_;
  uint64_t offset_ = 0;  // bytes handed out
  std::optional<char> ahead_;
};

// A file of which every line is a document.
class JsonLinesReader : public DocumentReader {
 public:
  JsonLinesReader(const DataFile& file, std::string text_field)
      : path_(file.path), text_field_(std::move(text_field)), stream_(ByteStream::open(file.path)) {}

  std::optional<Sequence> next(size_t max_bytes) override {
    while (text_offset_ == text_.size())
      if (!read_document()) return std::nullopt;
    Sequence result;
    result.starts_document = text_offset_ == 0;
    result.bytes = text_.substr(text_offset_, max_bytes);
    text_offset_ += result.bytes.size();
    result.ends_document = text_offset_ == text_.size();
    return result;
  }

  void save(StateWriter& out) const override {
    const bool inside = text_offset_ < text_.size();  // then the line is read again
    out.put("offset", static_cast<int64_t>(inside ? line_offset_ : next_line_offset_));
    out.put("line", inside ? line_ - 1 : line_);
    out.put("text_offset", static_cast<int64_t>(inside ? text_offset_ : 0));
  }
  void load(const StateReader& in) override {
    next_line_offset_ = static_cast<uint64_t>(in.integer("offset"));
    line_ = in.integer("line");
    stream_->skip(next_line_offset_);
    const auto text_offset = static_cast<size_t>(in.integer("text_offset"));
    if (text_offset == 0) return;
    if (!read_document() || text_.size() <= text_offset)
      throw Error(
          fmt::format("{}:{}: is not the line it was when the state was saved", path_.string(), line_));
    text_offset_ = text_offset;
  }

 private:
  // The next line that is not blank; false at the end.
  bool read_document() {
    std::string line;
    while (read_line(line)) {
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      text_ = text_of_json_line(line, text_field_, fmt::format("{}:{}", path_.string(), line_));
      text_offset_ = 0;
      return true;
    }
    return false;
  }

  bool read_line(std::string& line) {
    line.clear();
    line_offset_ = next_line_offset_;
    while (true) {
      const std::string_view rest = std::string_view(buffer_).substr(buffer_used_);
      const size_t end = rest.find('\n');
      line += rest.substr(0, end);
      buffer_used_ += end == std::string_view::npos ? rest.size() : end + 1;
      if (end != std::string_view::npos) {
        next_line_offset_ = line_offset_ + line.size() + 1;
        break;
      }
      buffer_.resize(1 << 18);
      buffer_.resize(stream_->read(buffer_.data(), buffer_.size()));
      buffer_used_ = 0;
      if (buffer_.empty()) {
        if (line.empty()) return false;
        next_line_offset_ = line_offset_ + line.size();
        break;
      }
    }
    ++line_;
    return true;
  }

  std::filesystem::path path_;
  std::string text_field_;
  std::unique_ptr<ByteStream> stream_;
  std::string buffer_;
  size_t buffer_used_ = 0;
  int64_t line_ = 0;          // lines read: the number of the current one, from 1
  uint64_t line_offset_ = 0;  // where it begins, and the one after it
  uint64_t next_line_offset_ = 0;
  std::string text_;        // of the current line
  size_t text_offset_ = 0;  // bytes of it handed out
};

}  // namespace

std::unique_ptr<DocumentReader> DocumentReader::open(const DataFile& file, const std::string& text_field) {
  if (file.json_lines) return std::make_unique<JsonLinesReader>(file, text_field);
  return std::make_unique<TextReader>(file.path);
}

}  // namespace blt
