// The small byte-level language model whose entropies decide where patches start (section 2.3 of the paper).
// Also a plain byte-level transformer, to compare with.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "blt/base/config.h"
#include "blt/batch.h"
#include "blt/model/linear.h"
#include "blt/model/ngram_embedding.h"
#include "blt/model/transformer.h"

namespace blt {

struct EntropyModelConfig : TransformerConfig {
  EntropyModelConfig() {
    layers = 14;
    heads = 12;
    rope_theta = 10000.0;
    ngram.sizes = {};
  }
  int64_t dim = 768;
  int64_t window = 512;
  NgramConfig ngram = {};

  static void fields(auto& self, auto&& field) {
    field("dim", self.dim, "Width of the byte states.", at_least(2));
    TransformerConfig::fields(self, field);
    field("window", self.window, "Bytes that a byte sees, itself included; 0: everything before it.",
          at_least(0));
    field("ngram", self.ngram, "Hashed n-gram embeddings added to the byte embeddings; none by default.");
  }
  void validate(Errors& errors) const { validate_width(dim, errors); }
};

// Not thread-safe while training; entropies() of a frozen model may be called from several threads at once.
class EntropyModelImpl : public torch::nn::Module {
 public:
  explicit EntropyModelImpl(const EntropyModelConfig& config);

  at::Tensor forward(const Batch& batch);  // [T, V] logits; reads batch.bytes and batch.documents
  at::Tensor forward(const at::Tensor& bytes, const Segments& documents);
  // From embeddings [N, C] on, with the rows' context (`layers->context`): what generation runs.
  at::Tensor forward_in(const at::Tensor& embeddings, const AttentionContext& context);

  // What the model knows about each next byte, without gradients.
  struct Scores {
    // [T] float32, nats: the uncertainty about the id that comes next (equation 1 of the paper).
    at::Tensor entropy = {};
    // [T] float32, nats: -log p(target); 0 where targets are kIgnore.
    at::Tensor nll = {};
  };
  // Only for a frozen model (blt::freeze): then a document's scores do not depend, bit for bit, on what it is
  // packed with, nor on the number of threads. Throws c10::Error otherwise.
  Scores scores(const at::Tensor& bytes, const at::Tensor& targets, const Segments& documents);

  const EntropyModelConfig& config() const { return config_; }

  NgramEmbedding embedding{nullptr};
  Layers layers{nullptr};
  RmsNorm norm{nullptr};
  Linear lm_head{nullptr};

 private:
  EntropyModelConfig config_;
};
TORCH_MODULE(EntropyModel);

}  // namespace blt
