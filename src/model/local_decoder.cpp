#include "blt/model/local_decoder.h"

#include <ATen/ops/index_select.h>

#include "model/dropout.h"
#include "model/trace_range.h"

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
  const TraceRange range(trace_name);
  const AttentionContext context = layers->context(batch.documents, bytes);
  return decode(std::move(bytes), memory(latents), batch.readers, context);
}

LocalDecoderImpl::Memory LocalDecoderImpl::memory(const at::Tensor& latents) {
  const at::Tensor states =
      patch_embedding_projection.is_empty() ? latents : patch_embedding_projection(latents);
  if (config_.cross_attention == DecoderCrossAttention::kNone) return {{}, states};
  const at::Tensor slots = states.view({-1, dim_});  // [P * k, C]
  Memory memory;
  for (size_t i = 0; i < cross_attn_layers->size(); ++i)
    memory.slots.push_back(cross_attn_layers->at<CrossAttentionImpl>(i).memory(slots));
  return memory;
}

at::Tensor LocalDecoderImpl::decode(at::Tensor bytes, const Memory& memory, const Segments& readers,
                                    const AttentionContext& context) {
  at::Tensor h = std::move(bytes);
  h = module_dropout(h, config_.dropout, is_training());
  if (config_.cross_attention == DecoderCrossAttention::kNone)
    return layers->forward_in(h + memory.added.index_select(0, readers.ids()), context);
  const Segments slot_segments = Segments::uniform(readers.count, k_, h.device());
  for (size_t i = 0; i < layers->size(); ++i) {
    // The cross-attention returns its queries too, so they are added twice: as the references do.
    if (i < cross_attn_layers->size())
      h = h + cross_attn_layers->at<CrossAttentionImpl>(i).attend(h, memory.slots[i], readers, slot_segments);
    h = layers->layer(i, h, context);
  }
  return h;
}

}  // namespace blt
