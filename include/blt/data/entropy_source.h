// Where entropies come from: the entropy model live (entropy_model_source.h), or whatever a user derives.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace blt {

// What the entropy model knows about one sequence of S ids.
struct SequenceScores {
  std::vector<float> entropies;  // S, nats: the uncertainty about the id after each
  std::vector<float> nll;        // S, nats: -log p(the id after each); 0 for the last
};

// Deterministic: a sequence's scores do not depend, bit for bit, on the others of a call.
class EntropySource {
 public:
  virtual ~EntropySource() = default;

  // sequences: ids of whole sequences, BOS first. As many results, in their order.
  virtual std::vector<SequenceScores> scores(std::span<const std::vector<int32_t>> sequences) = 0;
};

}  // namespace blt
