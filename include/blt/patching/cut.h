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

// Whether a rule that reads no entropies also answers for a whole sequence at once, in mark(ids, marks): marks[i] = 1 where a patch starts
// after ids[i], else 0, as fresh calls of the rule would say.
template <class Rule>
constexpr bool kMarksWhole = requires(const Rule& rule, std::span<const int32_t> ids, uint8_t* marks) {
  rule.mark(ids, marks);
};

namespace detail {
using Marks = std::vector<uint8_t>;
// The calling thread's, with room for `count` marks and what starts_of() wants behind them.
Marks& marks_for(int64_t count);
// 0, then i + 1 for every i < count with marks[i] == 1; the others are 0.
std::vector<int64_t> starts_of(Marks& marks, int64_t count);
}  // namespace detail

// Cuts a whole sequence (at least one id) by a copy of `rule`: 0, then i + 1 for every id i after which a patch starts.
template <class Rule>
std::vector<int64_t> cut_whole(Rule rule, std::span<const int32_t> ids, std::span<const float> entropies,
                               PatchBoundary boundary) {
  const auto size = static_cast<int64_t>(ids.size());
  detail::Marks& marks = detail::marks_for(size);
  const auto answer = [&](int64_t i) {
    float entropy = 0;
    if constexpr (kReadsEntropies<Rule>) entropy = entropies[i];
    return ask(rule, ids[i], entropy);
  };
  if constexpr (kMarksWhole<Rule>) {
    if (!boundary.has_limit()) {  // the rule alone decides, but after the first id
      rule.mark(ids, marks.data());
      marks[0] = static_cast<uint8_t>(boundary.next_starts(marks[0] != 0));
      return detail::starts_of(marks, size);
    }
  }
  int64_t i = 0;
  for (; i < size && (i == 0 || boundary.has_limit()); ++i)
    marks[i] = static_cast<uint8_t>(boundary.next_starts(answer(i)));
  for (; i < size; ++i) marks[i] = static_cast<uint8_t>(answer(i));
  return detail::starts_of(marks, size);
}

}  // namespace blt
