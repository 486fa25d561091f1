#include "blt/model/blt.h"

#include <string>
#include <utility>

#include "blt/ops/rms_norm_linears.h"
#include "model/trace_range.h"

namespace blt {

void BltConfig::validate(Errors& errors) const {
  const auto check = [&](const char* section, const TransformerConfig& config) {
    Errors found;
    config.validate_width(local_dim, found);
    for (const auto& [key, message] : found.items()) errors.add(std::string(section) + "." + key, message);
  };
  check("local_encoder", local_encoder);
  check("local_decoder", local_decoder);
}

BltImpl::BltImpl(const BltConfig& config) : config_(config) {
  const int64_t dim = config.local_dim;
  const int64_t k = config.cross_attn_k;
  local_encoder = register_module("local_encoder",
                                  LocalEncoder(config.local_encoder, config.ngram, dim, k, config.window));
  latent_transformer =
      register_module("latent_transformer", LatentTransformer(config.latent_transformer, k * dim));
  local_decoder = register_module(
      "local_decoder",
      LocalDecoder(config.local_decoder, dim, config.latent_transformer.dim, k, config.window));
  if (!config.tie_embeddings) lm_head = register_module("lm_head", Linear(dim, kVocabulary));
}

at::Tensor BltImpl::forward(const Batch& batch) {
  const auto [h_bytes, h_patches] = local_encoder(batch);                            // [T, C], [P, k C]
  const at::Tensor latents = latent_transformer(h_patches, batch.latent_documents);  // [P, C']
  return logits(local_decoder(h_bytes, latents, batch));                             // [T, V]
}

at::Tensor BltImpl::logits(const at::Tensor& h) const {
  const TraceRange range("logits");
  const RmsNorm& norm = local_decoder->norm;
  if (!lm_head.is_empty()) return norm_linears(norm, h, lm_head)[0];
  if (tied_output_) return ops::packed_linear(norm->forward(h), *tied_output_);
  const NgramEmbedding& embedding = local_encoder->embedding;
  return ops::rms_norm_linears(h, norm->there(norm->weight), norm->eps(),
                               {embedding->there(embedding->byte_table)})[0];
}

void BltImpl::freeze_own() {
  if (lm_head.is_empty()) tied_output_ = ops::packed_where_used(local_encoder->embedding->byte_table);
}

}  // namespace blt
