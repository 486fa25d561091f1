#include "tools/patched_text.h"

#include <fmt/format.h>

#include <string_view>

namespace blt {
namespace {

// Length of the UTF-8 character at the beginning of `bytes`; 0 where there is none (RFC 3629: no overlong
// forms, no surrogates, nothing above U+10FFFF).
size_t character_length(std::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || bytes.size() < length) return 0;
  for (size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  const bool wrong = (first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) >= 0xa0) ||
                     (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) >= 0x90);
  return wrong ? 0 : length;
}

// C0, DEL and C1 would move the cursor or worse.
bool is_control(std::string_view character) {
  const auto first = static_cast<unsigned char>(character[0]);
  return first < 0x20 || first == 0x7f || (first == 0xc2 && static_cast<unsigned char>(character[1]) < 0xa0);
}

std::string escape(unsigned char byte) {
  switch (byte) {
    case '\n':
      return "\\n";
    case '\t':
      return "\\t";
    case '\r':
      return "\\r";
    default:
      return fmt::format("\\x{:02x}", byte);
  }
}

}  // namespace

std::vector<Glyph> glyphs(const std::string& bytes) {
  std::vector<Glyph> result;
  for (size_t at = 0; at < bytes.size();) {
    const std::string_view rest = std::string_view(bytes).substr(at);
    const size_t length = character_length(rest);
    if (length == 0 || is_control(rest)) {
      result.push_back({escape(static_cast<unsigned char>(rest[0])), 1, true});
      at += 1;
    } else {
      result.push_back({std::string(rest.substr(0, length)), static_cast<int64_t>(length), false});
      at += length;
    }
  }
  return result;
}

}  // namespace blt
