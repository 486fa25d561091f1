// Entropies computed by an entropy model as they are needed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "blt/data/entropy_source.h"
#include "blt/model/entropy_model.h"

namespace blt {

class ForwardSlots;

// Runs a frozen entropy model over packed sequences. Keeps the model alive and where it is: its device is the
// source's. Thread-safe, as scores of a frozen model are.
//
// On a device other than the CPU passes have streams of their own, beside the current one of whoever trains there, and a thread that asks for
// scores waits for its own pass alone. (Not yet run on a GPU.)
class EntropyModelSource : public EntropySource {
 public:
  struct Options {
    bool reset_at_newline = false;  // the model's context restarts after each newline (EntropyPatching)
    // A batch ends with the sequence that brings it to this many ids or more. Without `rows`.
    int64_t batch_bytes = 16384;
    // Ids of every pass, the rest filled up behind its sequences; no sequence is longer. 0: as many as its sequences have. The bits of an
    // entropy may not depend on what it is computed with. On the CPU they do not for any number (ops/packed_linear.h); elsewhere a library picks
    // its matrix product by the number of rows, which has to be the same therefore.
    int64_t rows = 0;
    int64_t at_once =
        0;  // passes at once, at most, whoever asks: the others wait. 0: any number. With `rows`
  };
  // Throws c10::Error when the model is not frozen (blt::freeze), or is not on the CPU and lacks `rows` and `at_once`. With `rows`, throws
  // blt::Error when entropies of a sequence, computed at several places beside others, have different bits.
  EntropyModelSource(EntropyModel model, Options options);
  ~EntropyModelSource() override;

  std::vector<SequenceScores> scores(std::span<const std::vector<int32_t>> sequences) override;
  std::vector<std::vector<float>> entropies(std::span<const std::vector<int32_t>> sequences) override;

  // Of all that entropies depend on besides the sequence: weights, settings, the context's rule, `rows`, and the arithmetic of the device
  // and of its kernels (ops/arithmetic.h). For EntropyKey. Reads all weights.
  std::string identity() const;

 private:
  enum class Wanted { kEntropies, kAll };
  std::vector<SequenceScores> compute(std::span<const std::vector<int32_t>> sequences, Wanted wanted);
  void score_batch(std::span<const std::vector<int32_t>> sequences, std::span<SequenceScores> results,
                   Wanted wanted);
  void check_places();

  EntropyModel model_;
  Options options_;
  at::Device device_;
  std::unique_ptr<ForwardSlots> slots_;  // null: any number at once. Behind the model, for which it waits
};

}  // namespace blt
