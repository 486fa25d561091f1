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

  bool has_limit() const { return longest_ != std::numeric_limits<int64_t>::max(); }

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
  // Written without a branch: starts are hard to predict. The memory is the thread's, the result has what it needs.
  static thread_local std::vector<int64_t> starts;
  if (starts.size() < ids.size() + 1) starts.resize(ids.size() + 1);
  int64_t* const start = starts.data();
  start[0] = 0;
  int64_t count = 1;
  const auto answer = [&](int64_t i) {
    float entropy = 0;
    if constexpr (kReadsEntropies<Rule>) entropy = entropies[i];
    return ask(rule, ids[i], entropy);
  };
  int64_t i = 0;
  for (; i < size && (i == 0 || boundary.has_limit()); ++i) {
    start[count] = i + 1;
    count += boundary.next_starts(answer(i)) ? 1 : 0;
  }
  for (; i < size; ++i) {  // the rule alone decides
    start[count] = i + 1;
    count += answer(i) ? 1 : 0;
  }
  return {start, start + count};
}

}  // namespace blt
