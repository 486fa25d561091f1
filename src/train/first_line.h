// What c10d says, for messages.
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <string>

namespace blt {

// Only what happened: no stack of calls.
inline std::string first_line(const std::exception& e) {
  const auto* error = dynamic_cast<const c10::Error*>(&e);
  const std::string text = error != nullptr ? error->what_without_backtrace() : e.what();
  return text.substr(0, text.find('\n'));
}

}  // namespace blt
