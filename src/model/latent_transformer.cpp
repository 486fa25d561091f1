#include "blt/model/latent_transformer.h"

namespace blt {

LatentTransformerImpl::LatentTransformerImpl(const LatentTransformerConfig& config, int64_t in) {
  if (in != config.dim)
    token_embedding_projection = register_module("token_embedding_projection", Linear(in, config.dim));
  layers = register_module("layers", Layers(config, config.dim, /*window=*/0));
}

at::Tensor LatentTransformerImpl::forward(const at::Tensor& patches, const Segments& documents) {
  return layers(token_embedding_projection.is_empty() ? patches : token_embedding_projection(patches),
                documents);
}

}  // namespace blt
