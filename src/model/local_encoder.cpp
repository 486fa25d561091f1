#include "blt/model/local_encoder.h"

#include "model/dropout.h"
#include "model/trace_range.h"

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
  const TraceRange range(trace_name);
  const at::Tensor h = embedding(batch.bytes, batch.hashed_documents());  // [T, C]
  const std::vector<at::Tensor> states = this->states(h, layers->context(batch.documents, h));
  return {states.back(), patches(states, batch.patches)};
}

std::vector<at::Tensor> LocalEncoderImpl::states(const at::Tensor& embeddings,
                                                 const AttentionContext& context) {
  at::Tensor h = module_dropout(embeddings, config_.dropout, is_training());
  const bool every_layer = config_.cross_attention == EncoderCrossAttention::kAll;
  std::vector<at::Tensor> states;
  for (size_t i = 0; i < layers->size(); ++i) {
    h = layers->layer(i, h, context);
    if (every_layer || i + 1 == layers->size()) states.push_back(h);
  }
  return states;
}

at::Tensor LocalEncoderImpl::patches(const std::vector<at::Tensor>& states, const Segments& patches) {
  const Segments slots = Segments::uniform(patches.count, k_, states.back().device());
  at::Tensor result;  // [P * k, C]: the k query slots of patch p are rows p * k to p * k + k - 1
  for (size_t i = 0; i < states.size(); ++i) {
    if (!result.defined() || config_.patch_queries == PatchQueries::kRepool)
      result =
          patch_embedding_projection(ops::segment_pool(states[i], patches, config_.pooling)).view({-1, dim_});
    // The cross-attention returns its queries too, so they are added twice: as the references do.
    result = result + cross_attn_layers->at<CrossAttentionImpl>(i).forward(result, states[i], slots, patches);
  }
  return result.view({-1, k_ * dim_});
}

}  // namespace blt
