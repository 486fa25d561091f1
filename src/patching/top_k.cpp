#include "patching/top_k.h"

#include <algorithm>
#include <numeric>

namespace blt {

std::vector<bool> top_k_marks(std::span<const float> entropies, int64_t patch_bytes) {
  const auto size = static_cast<int64_t>(entropies.size());
  std::vector<int64_t> order(std::max<int64_t>(size - 1, 0));
  std::iota(order.begin(), order.end(), 1);
  const int64_t count = std::clamp<int64_t>(size / patch_bytes - 2, 0, static_cast<int64_t>(order.size()));
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](int64_t a, int64_t b) {
    return entropies[a] != entropies[b] ? entropies[a] > entropies[b] : a < b;
  });
  std::vector<bool> marks(size, false);
  marks[0] = true;
  for (int64_t i = 0; i < count; ++i) marks[order[i]] = true;
  return marks;
}

std::unique_ptr<PatchRule> TopKPatcher::rule() const {
  throw Error(
      "top_k patching looks ahead, so bytes cannot be generated with it: choose an entropy rule with a "
      "threshold");
}

std::vector<int64_t> TopKPatcher::cut(std::span<const int32_t> ids, std::span<const float> entropies) const {
  const std::vector<bool> marks = top_k_marks(entropies, patch_bytes_);
  return cut_whole([&, i = size_t{0}](int32_t) mutable { return bool(marks[i++]); }, ids, entropies,
                   PatchBoundary(max_patch_length()));
}

}  // namespace blt
