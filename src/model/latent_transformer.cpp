#include "blt/model/latent_transformer.h"

#include "model/trace_range.h"

namespace blt {

LatentTransformerImpl::LatentTransformerImpl(const LatentTransformerConfig& config, int64_t in) {
  if (in != config.dim)
    token_embedding_projection = register_module("token_embedding_projection", Linear(in, config.dim));
  layers = register_module("layers", Layers(config, config.dim, /*window=*/0));
}

at::Tensor LatentTransformerImpl::forward(const at::Tensor& patches, const Segments& documents) {
  const TraceRange range(trace_name);
  return forward_in(patches, layers->context(documents, patches));
}

at::Tensor LatentTransformerImpl::forward_in(const at::Tensor& patches, const AttentionContext& context) {
  return layers->forward_in(
      token_embedding_projection.is_empty() ? patches : token_embedding_projection(patches), context);
}

}  // namespace blt
