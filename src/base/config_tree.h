// YAML text as a tree that remembers lines, repeated keys and quotes, which yaml-cpp's own nodes forget or hide.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace blt::config_detail {

struct Tree {
  enum class Kind { kNull, kScalar, kList, kMap };
  struct Entry {
    std::string key;
    int line;
    std::shared_ptr<const Tree> value;
  };

  Kind kind = Kind::kNull;
  int line = 1;           // counted from 1
  std::string text = {};  // kScalar
  bool quoted = false;    // kScalar: text even where it looks like a number
  std::vector<Entry> entries =
      {};  // kMap, in the order of the text, with repeated keys; kList, with empty keys

  const Entry* find(std::string_view key) const;  // the first one, or null
};

// Throws blt::Error with `name:line: …` when the text is no YAML or more than one document. Empty text is a null.
std::shared_ptr<const Tree> parse_tree(std::string_view text, const std::string& name);

}  // namespace blt::config_detail
