// Measures a model on text: bits per byte, and how the text was patched.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "blt/data/entropy_source.h"
#include "blt/data/sequence.h"
#include "blt/data/stage.h"
#include "blt/eval/bits_per_byte.h"
#include "blt/patching/calibrate.h"
#include "blt/patching/patcher.h"

namespace blt {

// What is measured. Its modules are in evaluation mode (eval()), on `device`.
struct EvaluatedModel {
  Forward forward;
  std::shared_ptr<const Patcher> patcher =
      nullptr;  // null: the model reads bytes alone, as an entropy model does
  std::shared_ptr<EntropySource> entropies = nullptr;  // null: none, as for patchers that need none
  at::Device device = at::kCPU;
};

// One sequence with what the model says about it, while it is at hand.
struct ScoredSequence {
  std::vector<int32_t> ids;     // S, BOS first
  int64_t first = 1;            // ids[first] and later ones are scored here; those before are context
  std::vector<int64_t> starts;  // of patches, as in PatchedSequence; empty without a patcher
  std::vector<float>
      entropies;      // S, nats, about the id after each: of the entropy source, or the model's own when
                      // it reads bytes alone; else empty
  at::Tensor logits;  // [S, V]
  at::Tensor nll;     // [S] nats, of the id after each; 0 where that is context, or there is none
};

struct EvaluateOptions {
  int64_t context_bytes = 0;    // bytes of the same document before a sequence that it sees besides its own
  int64_t batch_bytes = 16384;  // ids that the model reads at once; a longer sequence is read alone
  std::function<void(const ScoredSequence&)> observe =
      {};  // called for every sequence in order; may be empty
};

struct Evaluation {
  double bits_per_byte = 0;
  std::optional<double> entropy_model_bits_per_byte;  // none without an entropy source
  std::optional<PatchCount> patches;                  // none without a patcher
  int64_t bytes = 0;                                  // scored, each once
  int64_t sequences = 0;
  int64_t documents = 0;
  double seconds = 0;  // of reading, patching and scoring
};

// Scores every byte of `sequences` once, given the BOS, the context before its sequence, and the bytes of its
// sequence before it. Overlapping windows of W bytes that move on by s: sequences of s bytes with W - s bytes of
// context; patchers that do not look ahead then cut a window's beginning as they would cut it alone.
// Throws blt::Error as the sequences do; c10::Error when the patcher needs entropies and there is no source.
Evaluation evaluate(const EvaluatedModel& model, Stage<Sequence>& sequences,
                    const EvaluateOptions& options = {});

}  // namespace blt
