// Lines for people, on standard error. Results go to standard output instead.
#pragma once

#include <string_view>

namespace blt {

// The environment's BLT_LOG chooses what is shown: debug, info (default), warning, error or off. Colours only
// on a terminal, and not where NO_COLOR is set. Thread-safe; a line is written whole.
void log_debug(std::string_view message);
void log_info(std::string_view message);
void log_warning(std::string_view message);
void log_error(std::string_view message);

}  // namespace blt
