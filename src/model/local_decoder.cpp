#include "blt/model/local_decoder.h"

#include <ATen/ops/dropout.h>
#include <ATen/ops/index_select.h>

namespace blt {

LocalDecoderImpl::LocalDecoderImpl(const LocalDecoderConfig& config, int64_t dim, int64_t latent_dim,
                                   int64_t k, int64_t window)
    : config_(config), dim_(dim), k_(k) {
  const bool cross = config.cross_attention != DecoderCrossAttention::kNone;
  if (cross || latent_dim != dim)
    patch_embedding_projection =
        register_module("patch_embedding_projection", Linear(latent_dim, cross ? k * dim : dim));
  if (cross) {
    cross_attn_layers = register_module("cross_attn_layers", torch::nn::ModuleList());
    const int64_t count = config.cross_attention == DecoderCrossAttention::kAll ? config.layers : 1;
    for (int64_t i = 0; i < count; ++i) cross_attn_layers->push_back(CrossAttention(config, dim, i));
  }
  layers = register_module("layers", Layers(config, dim, window));
  norm = register_module("norm", RmsNorm(dim, config.norm_eps));
}

at::Tensor LocalDecoderImpl::forward(at::Tensor bytes, const at::Tensor& latents, const Batch& batch) {
  at::Tensor h = std::move(bytes);
  if (config_.dropout > 0) h = at::dropout(h, config_.dropout, is_training());
  const at::Tensor memory =
      patch_embedding_projection.is_empty() ? latents : patch_embedding_projection(latents);
  if (config_.cross_attention == DecoderCrossAttention::kNone) {
    return norm(layers(h + memory.index_select(0, batch.readers.ids()), batch.documents));
  }
  const at::Tensor slots = memory.view({-1, dim_});  // [P * k, C]
  const Segments slot_segments = Segments::uniform(batch.patches.count, k_, h.device());
  const AttentionContext context = layers->context(batch.documents, h);
  for (size_t i = 0; i < layers->size(); ++i) {
    if (i < cross_attn_layers->size()) {
      // The cross-attention returns its queries too, so they are added twice: as the references do.
      h = h + cross_attn_layers->at<CrossAttentionImpl>(i).forward(h, slots, batch.readers, slot_segments);
    }
    h = layers->layer(i, h, context);
  }
  return norm(h);
}

}  // namespace blt
