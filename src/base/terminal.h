// What there is to know about the terminal behind a stream.
#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstddef>
#include <optional>

namespace blt {

// Columns of the terminal; none where the descriptor is a file or a pipe. Asked anew each time, as windows change.
inline std::optional<size_t> terminal_columns(int descriptor) {
  winsize size = {};
  if (isatty(descriptor) == 0) return std::nullopt;
  return ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace blt
