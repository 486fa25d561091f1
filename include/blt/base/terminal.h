// What there is to know about the terminal behind a stream.
#pragma once

#include <cstddef>
#include <optional>

namespace blt {

// Columns of the terminal; none where the descriptor is a file or a pipe. Asked anew each time, as windows change.
std::optional<size_t> terminal_columns(int descriptor);

// Whether it is a terminal that understands escape sequences: colours, and lines that are rewritten in place.
bool takes_escapes(int descriptor);

// A line on standard error that is rewritten in place: whoever writes something else ends it first. Thread-safe.
class OpenLine {
 public:
  static void begin();
  static void end();
  // Whether there was one; the caller writes the line break. For signal handlers too.
  static bool forget();
};

}  // namespace blt
