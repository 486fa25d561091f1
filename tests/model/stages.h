// A forward pass that keeps every stage, made of the model's public submodules.
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>

#include "blt/model/blt.h"
#include "blt/ops/cross_entropy.h"
#include "blt/ops/segment_pool.h"

namespace blt {

// The names of golden/README.md. Rows of all documents lie end to end.
inline std::map<std::string, at::Tensor> stages_of(BltImpl& model, const Batch& batch) {
  std::map<std::string, at::Tensor> stages;
  const BltConfig& config = model.config();
  const int64_t dim = config.local_dim;
  const Segments slots = Segments::uniform(batch.patches.count, config.cross_attn_k, batch.bytes.device());

  LocalEncoderImpl& encoder = *model.local_encoder;
  at::Tensor h = encoder.embedding(batch.bytes, batch.documents);
  stages["embeds"] = h;
  const AttentionContext encoder_context = encoder.layers->context(batch.documents, h);
  const bool all = config.local_encoder.cross_attention == EncoderCrossAttention::kAll;
  at::Tensor patches;
  for (size_t i = 0; i < encoder.layers->size(); ++i) {
    h = encoder.layers->layer(i, h, encoder_context);
    if (i == 0) stages["enc_layer0"] = h;
    if (!all && i + 1 < encoder.layers->size()) continue;
    if (!patches.defined() || config.local_encoder.patch_queries == PatchQueries::kRepool)
      patches =
          encoder
              .patch_embedding_projection(ops::segment_pool(h, batch.patches, config.local_encoder.pooling))
              .view({-1, dim});
    auto& cross_attention = encoder.cross_attn_layers->at<CrossAttentionImpl>(all ? i : 0);
    stages["enc_cross_attn_last"] = cross_attention.forward(patches, h, slots, batch.patches);
    patches = patches + stages["enc_cross_attn_last"];
  }
  stages["enc_hidden"] = h;
  stages["enc_cross"] = patches;

  const at::Tensor latents =
      model.latent_transformer(patches.view({batch.patches.count, -1}), batch.latent_documents);
  stages["global_out"] = latents;

  LocalDecoderImpl& decoder = *model.local_decoder;
  const at::Tensor memory = decoder.patch_embedding_projection(latents).view({-1, dim});
  const AttentionContext decoder_context = decoder.layers->context(batch.documents, h);
  for (size_t i = 0; i < decoder.layers->size(); ++i) {
    if (i < decoder.cross_attn_layers->size()) {
      const at::Tensor seen =
          decoder.cross_attn_layers->at<CrossAttentionImpl>(i).forward(h, memory, batch.readers, slots);
      if (i == 0) stages["dec_cross0"] = seen;
      h = h + seen;
    }
    h = decoder.layers->layer(i, h, decoder_context);
  }
  stages["dec_hidden"] = h;
  stages["dec_normed"] = decoder.norm(h);
  stages["logits"] = model.lm_head(stages["dec_normed"]);
  stages["loss"] = ops::cross_entropy(stages["logits"], batch.targets).nll.sum() / batch.num_targets;
  return stages;
}

}  // namespace blt
