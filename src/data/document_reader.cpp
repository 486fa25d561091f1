#include "data/document_reader.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "data/byte_stream.h"
#include "data/json_line.h"
#include "data/line_reader.h"

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
  JsonLinesReader(const DataFile& file, const std::string& text_field)
      : path_(file.path), lines_(file.path), parser_(text_field) {}

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
    out.put("offset", static_cast<int64_t>(inside ? lines_.begin() : lines_.end()));
    out.put("line", inside ? lines_.number() - 1 : lines_.number());
    out.put("text_offset", static_cast<int64_t>(inside ? text_offset_ : 0));
  }
  void load(const StateReader& in) override {
    lines_.skip(static_cast<uint64_t>(in.integer("offset")), in.integer("line"));
    const auto text_offset = static_cast<size_t>(in.integer("text_offset"));
    if (text_offset == 0) return;
    if (!read_document() || text_.size() <= text_offset)
      throw Error(fmt::format("{}:{}: is not the line it was when the state was saved", path_.string(),
                              lines_.number()));
    text_offset_ = text_offset;
  }

 private:
  // The next line that is not blank; false at the end.
  bool read_document() {
    while (const std::optional<std::string_view> line = lines_.next()) {
      if (line->find_first_not_of(" \t\r") == std::string::npos) continue;
      text_ = {};
      text_offset_ = 0;
      text_ = parser_.text(*line, [&] { return fmt::format("{}:{}", path_.string(), lines_.number()); });
      return true;
    }
    return false;
  }

  std::filesystem::path path_;
  LineReader lines_;
  JsonLineParser parser_;
  std::string_view text_;   // of the current line
  size_t text_offset_ = 0;  // bytes of it handed out
};

}  // namespace

std::unique_ptr<DocumentReader> DocumentReader::open(const DataFile& file, const std::string& text_field) {
  if (file.json_lines) return std::make_unique<JsonLinesReader>(file, text_field);
  return std::make_unique<TextReader>(file.path);
}

}  // namespace blt
