// How the next id is chosen from the model's logits.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "blt/base/config.h"
#include "blt/base/rng.h"

namespace blt {

struct SamplerConfig {
  bool greedy = false;
  std::optional<double> temperature = {};
  std::optional<int64_t> top_k = {};
  std::optional<double> top_p = {};
  std::optional<double> min_p = {};
  int64_t seed = 0;

  static void fields(auto& self, auto&& field) {
    field("greedy", self.greedy, "Always take the likeliest id, the smallest of equals.");
    field("temperature", self.temperature, "Divides the logits: below 1 is bolder. Default: 1.", above(0));
    field("top_k", self.top_k, "Choose among this many ids at most, the likeliest.", at_least(1));
    field("top_p", self.top_p,
          "Choose among the likeliest ids, as many as are needed to reach this share of what top-k left.",
          between(0, 1));
    field("min_p", self.min_p, "Choose among ids that are at least this share as likely as the likeliest.",
          between(0, 1));
    field("seed", self.seed, "Seed of the random choices: equal seeds choose alike.", at_least(0));
  }
  // Greedy and any of temperature, top_k, top_p and min_p exclude each other.
  void validate(Errors& errors) const;
};

// Chooses ids one after the other. Deterministic: the same config and the same logits give the same ids. Not
// thread-safe: one sampler, one sequence. Copyable; a copy goes on by itself.
class Sampler {
 public:
  // stream: samplers of one seed that choose for several sequences differ in it.
  explicit Sampler(const SamplerConfig& config, uint64_t stream = 0);

  // logits [V], any numbers but NaN and +inf; -inf: never. Throws blt::Error where no choice is possible: a NaN,
  // a +inf, or nothing but -inf.
  //
  // Probabilities are softmax(logits / temperature). Of equally likely ids the smaller one counts as likelier.
  // The likeliest id is never left out.
  int32_t operator()(std::span<const float> logits);

  // What operator() draws from: (id, weight), the likeliest first, its weight 1; greedy: the one id.
  std::vector<std::pair<int32_t, double>> candidates(std::span<const float> logits) const;

 private:
  SamplerConfig config_;
  Rng rng_;
};

}  // namespace blt
