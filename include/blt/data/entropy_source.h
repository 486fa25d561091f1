// Where entropies come from: the entropy model live (entropy_model_source.h), a cache in front of it (entropy_cache.h), or whatever a
// user derives.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace blt {

// What the entropy model knows about one sequence of S ids.
struct SequenceScores {
  std::vector<float> entropies;  // S, nats: the uncertainty about the id after each
  std::vector<float> nll;        // S, nats: -log p(the id after each); 0 for the last
};

// Deterministic: a sequence's scores do not depend, bit for bit, on the others of a call. Thread-safe: the loader's threads share one.
class EntropySource {
 public:
  virtual ~EntropySource() = default;

  // sequences: ids of whole sequences, BOS first. As many results, in their order.
  virtual std::vector<SequenceScores> scores(std::span<const std::vector<int32_t>> sequences) = 0;

  // The entropies alone, which is all that patching reads.
  virtual std::vector<std::vector<float>> entropies(std::span<const std::vector<int32_t>> sequences) {
    std::vector<std::vector<float>> result;
    for (SequenceScores& of_sequence : scores(sequences)) result.push_back(std::move(of_sequence.entropies));
    return result;
  }
};

}  // namespace blt
