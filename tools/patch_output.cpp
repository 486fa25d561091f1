#include "tools/patch_output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "blt/base/terminal.h"

namespace blt {
namespace {

// Dark text on two light backgrounds of the 256-colour palette: legible on dark and light terminals alike.
constexpr const char* kBackgrounds[] = {"\x1b[38;5;16;48;5;153m", "\x1b[38;5;16;48;5;223m"};
constexpr const char* kPlain = "\x1b[0m";

}  // namespace

bool terminal_takes_colors() {
  const char* no_color = std::getenv("NO_COLOR");
  return takes_escapes(STDOUT_FILENO) && (no_color == nullptr || *no_color == '\0');
}

std::string terminal_text(const TextPatch& patch, bool is_even, bool color) {
  const char* background = kBackgrounds[is_even ? 0 : 1];
  std::string text = color ? background : "";
  for (const Glyph& glyph : glyphs(patch.bytes)) {
    if (!color && !glyph.escaped && (glyph.text == "|" || glyph.text == "\\")) text += '\\';
    text += glyph.text;
    // The background ends before the line does, or the terminal paints the rest of it.
    if (glyph.escaped && glyph.text == "\\n")
      text += color ? fmt::format("{}\n{}", kPlain, background) : "\n";
  }
  if (color) return text + kPlain;
  text.insert(text.ends_with('\n') ? text.end() - 1 : text.end(), '|');  // on the line that the patch ends
  return text;
}

std::string json_line(const TextPatch& patch) {
  nlohmann::ordered_json row = {{"offset", patch.offset},
                                {"length", patch.bytes.size()},
                                {"text", patch.bytes},
                                {"entropies", nullptr}};
  if (!patch.entropies.empty()) row["entropies"] = patch.entropies;
  return row.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string patch_summary(int64_t bytes, int64_t patches) {
  return fmt::format("{} bytes, {} patches, {:.3f} bytes each\n", bytes, patches,
                     static_cast<double>(bytes) / static_cast<double>(patches));
}

}  // namespace blt
