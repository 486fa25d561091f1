// Lists in messages.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <vector>

namespace blt {

// The first few.
inline std::string shortened(const std::vector<std::string>& texts) {
  constexpr size_t kShown = 4;
  const size_t shown = std::min(kShown, texts.size());
  std::string result = fmt::format("{}", fmt::join(texts.begin(), texts.begin() + shown, ", "));
  if (shown < texts.size()) result += fmt::format(" and {} more (metrics.jsonl)", texts.size() - shown);
  return result;
}

}  // namespace blt
