#include "data/long_line.h"

#include <fmt/format.h>

#include <utility>

#include "data/document_reader.h"

namespace blt {
namespace {

constexpr size_t kPieceBytes = 1 << 18;

// Characters of the escape sequence at `at`; of a pair of surrogates all twelve. More than there are where the end is too near to tell.
size_t escape_length(std::string_view raw, size_t at) {
  constexpr size_t kUnicode = 6;  // \uXXXX
  if (at + 1 >= raw.size() || raw[at + 1] != 'u') return 2;
  if (at + kUnicode + 1 >= raw.size()) return 2 * kUnicode;
  const std::string_view high = raw.substr(at + 2, 2);
  const bool is_high =
      (high[0] == 'd' || high[0] == 'D') && std::string_view("89abAB").find(high[1]) != high.npos;
  return is_high && raw[at + kUnicode] == '\\' && raw[at + kUnicode + 1] == 'u' ? 2 * kUnicode : kUnicode;
}

bool continues_character(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// How many of these bytes are whole characters, when those behind them are not known.
size_t whole_characters(std::string_view bytes) {
  constexpr size_t kLongest = 4;
  for (size_t back = 1; back <= kLongest && back <= bytes.size(); ++back) {
    const char c = bytes[bytes.size() - back];
    if (continues_character(c)) continue;
    return static_cast<unsigned char>(c) < 0x80 ? bytes.size() : bytes.size() - back;
  }
  return bytes.size();  // no UTF-8, as the parser will say
}

// Where a string that is open at the beginning of `raw` has its closing quote, or else where it may be cut: not within a character or an
// escape sequence.
struct StringEnd {
  size_t length = 0;
  bool closed = false;
};
StringEnd string_end(std::string_view raw) {
  size_t at = 0;
  while (true) {
    const size_t found = raw.find_first_of("\"\\", at);
    if (found == raw.npos) return {at + whole_characters(raw.substr(at)), false};
    if (raw[found] == '"') return {found, true};
    const size_t length = escape_length(raw, found);
    if (found + length > raw.size()) return {found, false};
    at = found + length;
  }
}

// The place behind the opening quote of the field's string in the object that begins so; npos where there is none. Takes it for granted
// that the line is valid: who reads on will see.
size_t text_begin(std::string_view line, JsonLineParser& parser) {
  int64_t depth = 0;
  bool key = false, ours = false;  // whether a string is a key here; whether the last key is the text's
  for (size_t at = 0; at < line.size(); ++at) {
    switch (line[at]) {
      case '{':
        key = ++depth == 1;
        break;
      case '[':
        ++depth;
        key = false;
        break;
      case '}':
      case ']':
        --depth;
        break;
      case ':':
        key = false;
        break;
      case ',':
        key = depth == 1;
        break;
      case '"': {
        if (depth == 1 && !key && ours) return at + 1;
        const StringEnd end = string_end(line.substr(at + 1));
        if (!end.closed) return line.npos;
        if (depth == 1 && key) ours = parser.string(line.substr(at + 1, end.length)) == parser.text_field();
        at += 1 + end.length;
        break;
      }
      default:
        break;
    }
  }
  return line.npos;
}

}  // namespace

LongLine::LongLine(LineReader& lines, JsonLineParser& parser, std::string_view begin,
                   std::function<std::string()> where)
    : lines_(lines), parser_(parser), where_(std::move(where)) {
  const size_t at = text_begin(begin, parser);
  if (at == begin.npos)
    throw DocumentError(
        fmt::format("{}: a line of more than {} bytes, in the first of which there is no string \"{}\": put "
                    "the text first, or name its key with "
                    "text_field",
                    where_(), lines.longest_held(), parser.text_field()));
  around_ = begin.substr(0, at);
  raw_ = begin.substr(at);
}

std::string_view LongLine::next() {
  while (!closed_) {
    const std::string_view left = std::string_view(raw_).substr(used_);
    const std::string_view window = left.substr(0, kPieceBytes);
    const StringEnd end = string_end(window);
    closed_ = end.closed;
    if (end.length > 0) {
      const std::optional<std::string_view> piece = parser_.string(window.substr(0, end.length));
      if (!piece)
        throw DocumentError(
            fmt::format("{}: invalid JSON within the {} characters behind the {} first ones of the text",
                        where_(), end.length, text_raw_));
      used_ += end.length;
      text_raw_ += end.length;
      if (!piece->empty()) return *piece;
    } else if (!closed_) {
      raw_.erase(0, used_);
      used_ = 0;
      const std::string_view part = lines_.more();
      if (part.empty())
        throw DocumentError(fmt::format("{}: invalid JSON: the line ends within its text", where_()));
      raw_.append(part);
    }
  }
  if (!over_) finish();
  return {};
}

// Parses what is around the text.
void LongLine::finish() {
  around_.append(raw_, used_);
  raw_ = std::string();
  const size_t most = around_.size() + lines_.longest_held();
  for (std::string_view part = lines_.more(); !part.empty(); part = lines_.more()) {
    around_.append(part);
    if (around_.size() > most)
      throw DocumentError(
          fmt::format("{}: a line with more than {} bytes behind its text", where_(), lines_.longest_held()));
  }
  const size_t size = around_.size();
  around_.append(LineReader::kPadding, '\0');
  if (!parser_.text({around_.data(), size}, where_).empty())
    throw DocumentError(fmt::format("{}: \"{}\" is there twice", where_(), parser_.text_field()));
  over_ = true;
}

}  // namespace blt
