// Bytes out of a model, one after the other, with everything that was computed before kept.
//
//   freeze(*model);  model->eval();                       // and the entropy model likewise
//   Generator generator(model, entropy_model, patcher);
//   std::vector<GeneratedSequence> open = generator.prefill({ids_of("Once"), ids_of("")});
//   open[0].logits();                                     // [V], about the id that comes next
//   generator.step({&open[0], &open[1]}, {'a' + kByteOffset, 'b' + kByteOffset});
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "blt/generate/sampler.h"
#include "blt/model/blt.h"
#include "blt/model/entropy_model.h"
#include "blt/patching/patcher.h"

namespace blt {

// The BOS, then the bytes: how every sequence starts.
std::vector<int32_t> ids_of(std::string_view bytes);

struct SequenceState;

// A sequence that grows: its ids, where its patches start, and what the model's layers keep of it. Made by
// Generator::prefill and moved on by Generator::step of the same generator. Movable. Not thread-safe; different
// sequences may be used in different threads.
class GeneratedSequence {
 public:
  GeneratedSequence(GeneratedSequence&&) noexcept;
  GeneratedSequence& operator=(GeneratedSequence&&) noexcept;
  ~GeneratedSequence();

  const std::vector<int32_t>& ids() const;  // BOS first
  const std::vector<int64_t>& starts()
      const;  // as in PatchedSequence; empty for a model that reads bytes alone
  const std::vector<float>& entropies() const;  // as Patcher::starts takes them; empty where none are needed
  const at::Tensor& logits() const;             // [V] float32 on the CPU, about the id that comes next

 private:
  friend class Generator;
  explicit GeneratedSequence(std::unique_ptr<SequenceState> state);
  std::unique_ptr<SequenceState> state_;
};

// Runs a Byte Latent Transformer, or an entropy model alone, over several sequences at different places: what is
// said about an id depends on its own sequence alone. A step costs what its bytes cost: the local models and the
// entropy model run a row for each sequence over rings of keys as long as their windows, the latent transformer
// a row for each patch that ends, over the keys of all patches. The bytes of the open patch wait in the encoder
// and become a patch at once when it ends. On the CPU.
//
// For frozen models (blt::freeze and eval()). Entropies, and so patches, are those of the whole sequence, bit for
// bit; so are the logits, as a frozen model's rows do not depend on each other (ops/packed_linear.h).
//
// Thread-safe as its models are: frozen ones may be run from several threads, on different sequences.
class Generator {
 public:
  struct Options {
    bool reset_at_newline =
        false;  // the entropy model's context restarts after each newline (EntropyPatching)
  };

  // entropy_model: null where the patcher needs no entropies. Throws blt::Error when the patcher looks ahead
  // (top_k), or needs entropies and there is no entropy model; c10::Error when a model is not frozen, is in
  // training mode, is not on one device in one type, or is on the CPU and not float32.
  Generator(Blt model, EntropyModel entropy_model, std::shared_ptr<const Patcher> patcher, Options options);
  Generator(Blt model, EntropyModel entropy_model, std::shared_ptr<const Patcher> patcher)
      : Generator(std::move(model), std::move(entropy_model), std::move(patcher), Options()) {}
  // A byte-level transformer as a language model.
  explicit Generator(EntropyModel model);

  // Reads whole prompts at once, in batches as training does. Each has at least one id, the BOS first. Throws
  // c10::Error on an empty prompt or an id outside the vocabulary.
  std::vector<GeneratedSequence> prefill(const std::vector<std::vector<int32_t>>& prompts) const;

  // Appends ids[i] to *sequences[i]. Throws c10::Error as above, and when the numbers differ or a sequence is given
  // twice; after an exception the sequences are not to be used.
  void step(const std::vector<GeneratedSequence*>& sequences, const std::vector<int32_t>& ids) const;

 private:
  using State = SequenceState;
  void prefill_entropies(const std::vector<State*>& sequences) const;
  void prefill_patches(const std::vector<State*>& sequences) const;
  at::Tensor step_entropy_model(const std::vector<State*>& sequences) const;
  void decide_patches(const std::vector<State*>& sequences, const at::Tensor& entropies) const;
  std::vector<at::Tensor> encode(const std::vector<State*>& sequences) const;
  void keep_open(const std::vector<State*>& sequences, const std::vector<at::Tensor>& rows) const;
  void end_patches(const std::vector<State*>& sequences) const;
  void decode(const std::vector<State*>& sequences, const at::Tensor& rows) const;

  // Frozen: running them changes nothing.
  mutable Blt model_{nullptr};
  mutable EntropyModel entropy_model_{nullptr};
  std::shared_ptr<const Patcher> patcher_;
  Options options_;
  at::Device device_ = at::kCPU, entropy_device_ = at::kCPU;  // of each
};

struct GenerateOptions {
  int64_t max_bytes = 0;    // ids that are chosen at most: a special id counts as a byte would
  bool ignore_eos = false;  // go on after EOS
  SamplerConfig sampler = {};
};

// Goes on from a prompt (ids, BOS first) and hands each byte to `emit` as soon as it is chosen. Special ids are
// fed back to the model and not emitted; EOS ends it, unless ignored. Returns the ids that were chosen.
std::vector<int32_t> generate(const Generator& generator, const std::vector<int32_t>& prompt,
                              const GenerateOptions& options, const std::function<void(uint8_t)>& emit);

}  // namespace blt
