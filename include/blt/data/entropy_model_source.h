// Entropies computed by an entropy model as they are needed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "blt/data/entropy_source.h"
#include "blt/model/entropy_model.h"

namespace blt {

// Runs a frozen entropy model over packed sequences. Keeps the model alive and where it is: its device is the
// source's. Thread-safe, as scores of a frozen model are.
class EntropyModelSource : public EntropySource {
 public:
  struct Options {
    bool reset_at_newline = false;  // the model's context restarts after each newline (EntropyPatching)
    // A batch ends with the sequence that brings it to this many ids or more.
    int64_t batch_bytes = 16384;
  };
  // Throws c10::Error when the model is not frozen (blt::freeze).
  EntropyModelSource(EntropyModel model, Options options);

  std::vector<SequenceScores> scores(std::span<const std::vector<int32_t>> sequences) override;

  // Of all that entropies depend on besides the sequence: weights, settings, the context's rule, the kind of device and the arithmetic of
  // its kernels. For EntropyKey. Reads all weights.
  std::string identity() const;

 private:
  void score_batch(std::span<const std::vector<int32_t>> sequences, std::span<SequenceScores> results);

  EntropyModel model_;
  Options options_;
  at::Device device_;
};

}  // namespace blt
