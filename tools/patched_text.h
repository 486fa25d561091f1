// What the outputs of blt_patch are made from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace blt {

// A patch, with what the entropy model knew about each of its bytes before it came.
struct TextPatch {
  int64_t offset = 0;  // of its first byte in the text
  std::string bytes;
  std::vector<float> entropies;  // nats, one a byte; empty where the rule needs none
};

// What a text was cut by.
struct PatchRuleInfo {
  std::string name;                 // "entropy model in runs/first/latest", "space"
  std::optional<double> threshold;  // nats, where the rule compares entropies with one
};

// One thing to show for some bytes: a whole character, or a byte that is none.
struct Glyph {
  std::string text;   // UTF-8
  int64_t bytes = 1;  // that it stands for
  bool escaped = false;
};

// The characters of `bytes`. Bytes that are no UTF-8, and control characters, become escapes: \n, \t, \xff.
std::vector<Glyph> glyphs(const std::string& bytes);

}  // namespace blt
