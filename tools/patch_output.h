// How blt_patch shows patches in a terminal and to programs.
#pragma once

#include <string>

#include "tools/patched_text.h"

namespace blt {

// Whether standard output takes colours: it is a terminal, and NO_COLOR is not set (no-color.org).
bool terminal_takes_colors();

// A patch as text on alternating backgrounds; without colours, a bar follows each. A line break in the text
// is shown and made.
std::string terminal_text(const TextPatch& patch, bool is_even, bool color);

// {"offset":12,"length":3,"text":"the","entropies":[…]} and a line break; entropies in nats, null where the
// rule needs none. Bytes that are no UTF-8 become U+FFFD in "text".
std::string json_line(const TextPatch& patch);

// "1234 bytes, 300 patches, 4.113 bytes each"
std::string patch_summary(int64_t bytes, int64_t patches);

}  // namespace blt
