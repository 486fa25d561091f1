// What the user did wrong, said once and clearly.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace blt {

// The user is at fault: a config, data, a file, a command line. The message says where (`file:line` or
// `file@offset`), what, and what to do. Misuse of an operator or module by its caller is a c10::Error
// (TORCH_CHECK) instead.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Problems found in one section of a config, collected so that a user fixes a file once. `validate` functions
// add to it with the key relative to their own section; the reader turns keys into `file:line: full.path`.
class Errors {
 public:
  // key: the field at fault, or a dotted path below the section; empty: the section as a whole.
  void add(std::string_view key, std::string message) {
    items_.emplace_back(std::string(key), std::move(message));
  }

  bool empty() const { return items_.empty(); }
  const std::vector<std::pair<std::string, std::string>>& items() const { return items_; }

 private:
  std::vector<std::pair<std::string, std::string>> items_;
};

}  // namespace blt
