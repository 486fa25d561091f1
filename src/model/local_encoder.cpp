#include "blt/model/local_encoder.h"

#include <ATen/ops/dropout.h>

namespace blt {

LocalEncoderImpl::LocalEncoderImpl(const LocalEncoderConfig& config, const NgramConfig& ngram, int64_t dim,
                                   int64_t k, int64_t window)
    : config_(config), dim_(dim), k_(k) {
  embedding = register_module("embedding", NgramEmbedding(ngram, dim));
  layers = register_module("layers", Layers(config, dim, window, config.feed_forward));
  patch_embedding_projection = register_module("patch_embedding_projection", Linear(dim, k * dim));
  cross_attn_layers = register_module("cross_attn_layers", torch::nn::ModuleList());
  const int64_t count = config.cross_attention == EncoderCrossAttention::kAll ? config.layers : 1;
  for (int64_t i = 0; i < count; ++i) cross_attn_layers->push_back(CrossAttention(config, dim, i));
}

LocalEncoderImpl::Output LocalEncoderImpl::forward(const Batch& batch) {
  at::Tensor h = embedding(batch.bytes, batch.documents);  // [T, C]
  if (config_.dropout > 0) h = at::dropout(h, config_.dropout, is_training());

  const AttentionContext context = layers->context(batch.documents, h);
  const Segments slots = Segments::uniform(batch.patches.count, k_, h.device());
  const bool every_layer = config_.cross_attention == EncoderCrossAttention::kAll;
  at::Tensor patches;  // [P * k, C]: the k query slots of patch p are rows p * k to p * k + k - 1
  for (size_t i = 0; i < layers->size(); ++i) {
    h = layers->layer(i, h, context);
    if (!every_layer && i + 1 < layers->size()) continue;
    if (!patches.defined() || config_.patch_queries == PatchQueries::kRepool)
      patches =
          patch_embedding_projection(ops::segment_pool(h, batch.patches, config_.pooling)).view({-1, dim_});
    // The cross-attention returns its queries too, so they are added twice: as the references do.
    auto& cross_attention = cross_attn_layers->at<CrossAttentionImpl>(every_layer ? i : 0);
    patches = patches + cross_attention.forward(patches, h, slots, batch.patches);
  }
  return {h, patches.view({-1, k_ * dim_})};
}

}  // namespace blt
