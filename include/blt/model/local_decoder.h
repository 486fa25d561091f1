// Patch states back into bytes (section 3.3 of the paper).
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "blt/base/config.h"
#include "blt/batch.h"
#include "blt/model/cross_attention.h"
#include "blt/model/traced.h"
#include "blt/model/transformer.h"

namespace blt {

// Which decoder layers have a cross-attention into the bytes before them.
enum class DecoderCrossAttention {
  kFirst,
  kAll,
  kNone,  // each byte adds the patch state it reads, projected to its width where the widths differ
};
template <>
struct EnumNames<DecoderCrossAttention> {
  static constexpr std::pair<DecoderCrossAttention, std::string_view> kValues[] = {
      {DecoderCrossAttention::kFirst, "first"},
      {DecoderCrossAttention::kAll, "all"},
      {DecoderCrossAttention::kNone, "none"}};
};

struct LocalDecoderConfig : TransformerConfig {
  LocalDecoderConfig() { layers = 7; }
  DecoderCrossAttention cross_attention = DecoderCrossAttention::kAll;

  static void fields(auto& self, auto&& field) {
    TransformerConfig::fields(self, field);
    field("cross_attention", self.cross_attention,
          "Cross-attention before the first layer, before all, or none.");
  }
};

class LocalDecoderImpl : public torch::nn::Module, public Traced {
 public:
  // dim: width of byte states; latent_dim: of patch states; k: key slots a patch; window: bytes that a byte
  // sees (0: all before).
  LocalDecoderImpl(const LocalDecoderConfig& config, int64_t dim, int64_t latent_dim, int64_t k,
                   int64_t window);

  // bytes [T, C] (the encoder's), latents [P, C'] -> [T, C]. Each byte reads the last patch that
  // is complete before the next byte (batch.readers).
  at::Tensor forward(at::Tensor bytes, const at::Tensor& latents, const Batch& batch);

  // The two halves of forward, which generation runs at different times.
  // What bytes read of P patches: keys and values for each cross-attention, P * k rows; without any, what is
  // added to the bytes that read a patch, [P, C].
  struct Memory {
    std::vector<CrossAttentionImpl::Memory> slots;
    at::Tensor added;
  };
  Memory memory(const at::Tensor& latents);  // [P, C']
  // readers: the rows of `bytes` into P runs.
  at::Tensor decode(at::Tensor bytes, const Memory& memory, const Segments& readers,
                    const AttentionContext& context);

  Linear patch_embedding_projection{nullptr};  // null without cross-attention where the widths agree
  torch::nn::ModuleList cross_attn_layers{nullptr};
  Layers layers{nullptr};
  RmsNorm norm{nullptr};  // of what forward returns, before the output matrix (BltImpl::logits)

 private:
  LocalDecoderConfig config_;
  int64_t dim_, k_;
};
TORCH_MODULE(LocalDecoder);

}  // namespace blt
