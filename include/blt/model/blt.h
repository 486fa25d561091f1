// The Byte Latent Transformer: bytes -> patches -> latents -> bytes (arXiv:2412.09871, section 3).
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <optional>

#include "blt/base/config.h"
#include "blt/batch.h"
#include "blt/model/latent_transformer.h"
#include "blt/model/linear.h"
#include "blt/model/local_decoder.h"
#include "blt/model/local_encoder.h"
#include "blt/model/ngram_embedding.h"
#include "blt/ops/packed_linear.h"

namespace blt {

struct BltConfig {
  int64_t local_dim = 768;
  int64_t window = 512;
  int64_t cross_attn_k = 2;
  bool tie_embeddings = false;
  NgramConfig ngram = {};
  LocalEncoderConfig local_encoder = {};
  LatentTransformerConfig latent_transformer = {};
  LocalDecoderConfig local_decoder = {};

  static void fields(auto& self, auto&& field) {
    field("local_dim", self.local_dim, "Width of byte states, in the encoder and the decoder.", at_least(2));
    field("window", self.window,
          "Bytes that a byte sees in the local models, itself included; 0: everything before it.",
          at_least(0));
    field("cross_attn_k", self.cross_attn_k,
          "Vectors of the byte width that a patch has in the cross-attentions.", at_least(1));
    field("tie_embeddings", self.tie_embeddings, "Whether the output matrix is the byte embedding table.");
    field("ngram", self.ngram, "Hashed n-gram embeddings added to the byte embeddings.");
    field("local_encoder", self.local_encoder, "Bytes to patches.");
    field("latent_transformer", self.latent_transformer, "The transformer over patches.");
    field("local_decoder", self.local_decoder, "Patches to bytes.");
  }
  void validate(Errors& errors) const;
};

// Not thread-safe while training.
class BltImpl : public torch::nn::Module, public Freezable {
 public:
  explicit BltImpl(const BltConfig& config);

  // [T, V] logits: row i is about the id that follows id i. Documents do not see each other.
  at::Tensor forward(const Batch& batch);

  at::Tensor logits(const at::Tensor& h) const;  // the decoder's [N, C], normalised here -> [N, V]

  const BltConfig& config() const { return config_; }

  void freeze_own() override;  // on the CPU, packs the output matrix where that is the byte embedding table

  LocalEncoder local_encoder{nullptr};
  LatentTransformer latent_transformer{nullptr};
  LocalDecoder local_decoder{nullptr};
  Linear lm_head{nullptr};  // null when tied to the byte embedding table

 private:
  BltConfig config_;
  std::optional<ops::PackedWeight> tied_output_;  // frozen on the CPU
};
TORCH_MODULE(Blt);

}  // namespace blt
