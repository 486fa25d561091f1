// How the answers of a rule become patches: the one place that knows about the first patch and full patches.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace blt {

// Whether a rule takes (id, entropy) rather than (id).
template <class Rule>
constexpr bool kReadsEntropies = std::is_invocable_r_v<bool, Rule&, int32_t, float>;

template <class Rule>
bool ask(Rule& rule, int32_t id, [[maybe_unused]] float entropy) {
  if constexpr (kReadsEntropies<Rule>)
    return rule(id, entropy);
  else
    return rule(id);
}

// What holds for every rule: the first id is alone in its patch, and after a full patch another one starts.
class PatchBoundary {
 public:
  // bos_alone: false for the bare rules of REFERENCE section 5, where the first patch may be longer.
  explicit PatchBoundary(std::optional<int64_t> max_patch_length, bool bos_alone = true)
      : longest_(max_patch_length.value_or(std::numeric_limits<int64_t>::max())), forced_(bos_alone) {}

  // Called for every id in order with the rule's answer; returns whether the next id starts a patch.
  bool next_starts(bool rule) {
    ++length_;
    const bool starts = rule || forced_ || length_ >= longest_;
    forced_ = false;
    if (starts) length_ = 0;
    return starts;
  }

 private:
  int64_t longest_;
  int64_t length_ = 0;  // of the patch so far
  bool forced_;
};

// Cuts a whole sequence by a copy of `rule`: 0, then i + 1 for every id i after which a patch starts.
template <class Rule>
std::vector<int64_t> cut_whole(Rule rule, std::span<const int32_t> ids, std::span<const float> entropies,
                               PatchBoundary boundary) {
  const auto size = static_cast<int64_t>(ids.size());
  std::vector<int64_t> starts(ids.size() +
                              1);  // written without a branch, then shortened: starts are hard to predict
  int64_t count = 1;
  for (int64_t i = 0; i < size; ++i) {
    starts[count] = i + 1;
    float entropy = 0;
    if constexpr (kReadsEntropies<Rule>) entropy = entropies[i];
    count += boundary.next_starts(ask(rule, ids[i], entropy)) ? 1 : 0;
  }
  starts.resize(count);
  starts.shrink_to_fit();
  return starts;
}

}  // namespace blt
