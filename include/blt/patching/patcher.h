// What cuts a sequence into patches: a rule over ids and, if it asks for them, entropies. A patcher never
// calls a model.
//
// A rule is asked after every id whether the next id starts a patch, so the same rule serves a whole document
// and generation, and both agree by construction. A user's own patcher is a few lines (`last` is copied anew
// for every sequence):
//
//   // A patch ends at each newline.
//   auto lines = rule_patcher([](int32_t id) { return id == '\n' + kByteOffset; });
//   // A patch starts where the entropy doubles.
//   auto jumps = rule_patcher([last = 0.f](int32_t, float entropy) mutable {
//     return entropy > 2 * std::exchange(last, entropy);
//   });
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "blt/patching/cut.h"
#include "blt/patching/patching_config.h"

namespace blt {

// The state of a rule within one sequence. Not thread-safe.
class PatchRule {
 public:
  virtual ~PatchRule() = default;
  // Takes the ids of a sequence one after the other, BOS first, each with the entropy of the id after it
  // (nats; any number where the rule needs none); answers whether the next id starts a patch.
  virtual bool next_starts(int32_t id, float entropy) = 0;
};

// The incremental form: what generation asks, byte by byte. Adds what holds for every rule: the BOS is alone
// in its patch, and a full patch is followed by another. Not thread-safe.
class PatchStream {
 public:
  PatchStream(std::unique_ptr<PatchRule> rule, std::optional<int64_t> max_patch_length)
      : rule_(std::move(rule)), boundary_(max_patch_length) {}

  // As PatchRule::next_starts.
  bool push(int32_t id, float entropy = 0) { return boundary_.next_starts(rule_->next_starts(id, entropy)); }

 private:
  std::unique_ptr<PatchRule> rule_;
  PatchBoundary boundary_;
};

// Thread-safe: several threads may cut sequences with one patcher.
class Patcher {
 public:
  explicit Patcher(std::optional<int64_t> max_patch_length = {}) : max_patch_length_(max_patch_length) {}
  virtual ~Patcher() = default;

  // Whether the rule reads entropies.
  virtual bool needs_entropies() const = 0;

  // A fresh rule, for one sequence. Throws blt::Error where the rule looks ahead and has no incremental form
  // (top_k).
  virtual std::unique_ptr<PatchRule> rule() const = 0;

  // Where the patches of a whole sequence start, as PatchedSequence wants them: 0, 1, …, increasing; S itself
  // is among them when the id that comes next, not seen yet, starts a patch. Stable under prefixes, unless
  // the rule looks ahead (top_k).
  //   ids        S >= 1 ids, BOS first
  //   entropies  S entropies in nats, entropies[i] that of the id after ids[i]; may be empty unless
  //   needs_entropies()
  // Throws c10::Error when there are no ids, or as many entropies as needed are not there.
  std::vector<int64_t> starts(std::span<const int32_t> ids, std::span<const float> entropies = {}) const;

  // The incremental form of the same. Throws as rule() does.
  PatchStream stream() const { return {rule(), max_patch_length_}; }

  std::optional<int64_t> max_patch_length() const { return max_patch_length_; }

 protected:
  // What starts() returns, for checked arguments. The default asks rule(); overridden for speed, or by rules
  // that look ahead.
  virtual std::vector<int64_t> cut(std::span<const int32_t> ids, std::span<const float> entropies) const;

 private:
  std::optional<int64_t> max_patch_length_;
};

// A patcher made of a copyable function `bool(int32_t id)` or `bool(int32_t id, float entropy)`, with or
// without state. It needs entropies when it takes them.
template <class Rule>
class RulePatcher final : public Patcher {
 public:
  explicit RulePatcher(Rule rule, std::optional<int64_t> max_patch_length = {})
      : Patcher(max_patch_length), rule_(std::move(rule)) {}

  bool needs_entropies() const override { return kReadsEntropies<Rule>; }
  std::unique_ptr<PatchRule> rule() const override { return std::make_unique<State>(rule_); }

 protected:
  std::vector<int64_t> cut(std::span<const int32_t> ids, std::span<const float> entropies) const override {
    return cut_whole(rule_, ids, entropies, PatchBoundary(max_patch_length()));
  }

 private:
  struct State final : PatchRule {
    explicit State(const Rule& initial) : rule(initial) {}
    bool next_starts(int32_t id, float entropy) override { return ask(rule, id, entropy); }
    Rule rule;
  };
  Rule rule_;
};

template <class Rule>
std::unique_ptr<Patcher> rule_patcher(Rule rule, std::optional<int64_t> max_patch_length = {}) {
  return std::make_unique<RulePatcher<Rule>>(std::move(rule), max_patch_length);
}

// The patcher that a config describes. Throws blt::Error when an entropy rule has no threshold: calibrate
// (calibrate.h) first.
std::unique_ptr<Patcher> make_patcher(const PatchingConfig& config);

}  // namespace blt
