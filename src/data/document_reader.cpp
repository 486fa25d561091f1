#include "data/document_reader.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "data/byte_stream.h"
#include "data/json_line.h"
#include "data/long_line.h"
#include "data/parquet.h"

namespace blt {
namespace {

// A file that is one document.
class TextReader : public DocumentReader {
 public:
  explicit TextReader(const std::filesystem::path& path) : stream_(ByteStream::open(path)) {}

  std::optional<Sequence> next(size_t max_bytes) override {
    Sequence result;
    result.starts_document = offset_ == 0;
    result.place.offset = static_cast<int64_t>(offset_);
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
  JsonLinesReader(const DataFile& file, const std::string& text_field, size_t longest_line)
      : path_(file.path), lines_(file.path, longest_line), parser_(text_field) {}

  std::optional<Sequence> next(size_t max_bytes) override {
    try {
      if (!inside_ && !next_document()) return std::nullopt;
      Sequence result;
      result.starts_document = text_offset_ == 0;
      result.place.line = lines_.number();
      result.place.offset = static_cast<int64_t>(text_offset_);
      take(max_bytes, [&](std::string_view text) { result.bytes.append(text); });
      result.ends_document = !find_text();
      text_offset_ += result.bytes.size();
      inside_ = !result.ends_document;
      return result;
    } catch (const DocumentError& problem) {
      const uint64_t begin = lines_.begin();
      lines_.pass_over();
      inside_ = false;
      throw DocumentError(fmt::format("{} (the line begins at byte {})", problem.what(), begin));
    }
  }

  void save(StateWriter& out) const override {  // inside a document its line is read again
    out.put("offset", static_cast<int64_t>(inside_ ? lines_.begin() : lines_.end()));
    out.put("line", inside_ ? lines_.number() - 1 : lines_.number());
    out.put("text_offset", static_cast<int64_t>(inside_ ? text_offset_ : 0));
  }
  void load(const StateReader& in) override {
    lines_.skip(static_cast<uint64_t>(in.integer("offset")), in.integer("line"));
    const auto text_offset = static_cast<size_t>(in.integer("text_offset"));
    if (text_offset == 0) return;
    inside_ = next_document();
    if (inside_) take(text_offset, [&](std::string_view text) { text_offset_ += text.size(); });
    if (!inside_ || text_offset_ < text_offset || !find_text())
      throw Error(fmt::format("{}:{}: is not the line it was when the state was saved", path_.string(),
                              lines_.number()));
  }

 private:
  // Goes to the next line with a text that is not empty; false at the end.
  bool next_document() {
    const auto where = [this] { return fmt::format("{}:{}", path_.string(), lines_.number()); };
    while (const std::optional<std::string_view> line = lines_.next()) {
      if (line->find_first_not_of(" \t\r") == std::string_view::npos && lines_.is_whole()) continue;
      text_offset_ = 0;
      long_line_.reset();
      text_ = {};
      if (lines_.is_whole())
        text_ = parser_.text(*line, where);
      else
        long_line_.emplace(lines_, parser_, *line, where);
      if (find_text()) return true;
    }
    return false;
  }
  // Whether there is more of the text; then some of it is in text_.
  bool find_text() {
    if (text_.empty() && long_line_) text_ = long_line_->next();
    return !text_.empty();
  }
  // Hands on the next `bytes` bytes of the text, fewer at its end.
  template <class F>
  void take(size_t bytes, const F& f) {
    while (bytes > 0 && find_text()) {
      const std::string_view part = text_.substr(0, bytes);
      f(part);
      text_.remove_prefix(part.size());
      bytes -= part.size();
    }
  }

  std::filesystem::path path_;
  LineReader lines_;
  JsonLineParser parser_;
  std::optional<LongLine> long_line_;  // the current one, where it is too long to be held
  std::string_view text_;              // what is at hand of the current line's
  size_t text_offset_ = 0;             // bytes of it handed out
  bool inside_ = false;                // a document that is not handed out to its end
};

}  // namespace

std::unique_ptr<DocumentReader> DocumentReader::open(const DataFile& file, const std::string& text_field,
                                                     size_t longest_line) {
  switch (file.format) {
    case DocumentFormat::kJsonLines:
      return std::make_unique<JsonLinesReader>(file, text_field, longest_line);
    case DocumentFormat::kParquet:
      return open_parquet(file.path, text_field);
    case DocumentFormat::kText:
    case DocumentFormat::kAuto:
      break;
  }
  return std::make_unique<TextReader>(file.path);
}

}  // namespace blt
