// The whole model once more, in plain tensor algebra: one document, dense masks, no operators of ours but the
// n-gram hash. Slow, and obviously what REFERENCE sections 2 to 9 say.
#pragma once

#include <torch/torch.h>

#include <cmath>
#include <vector>

#include "blt/model/blt.h"
#include "blt/ops/ngram_embedding.h"

namespace blt {

class DenseReference {
 public:
  explicit DenseReference(const BltImpl& model) : model_(model), config_(model.config()) {}

  // [S, V] logits of one document.
  at::Tensor forward(const PatchedSequence& document) {
    const auto size = static_cast<int64_t>(document.ids.size());
    // Patch of every id, and of the id after the last.
    std::vector<int64_t> patch_of(size + 1, -1);
    for (const int64_t start : document.starts)
      for (int64_t i = start; i <= size; ++i) ++patch_of[i];
    const int64_t num_patches = patch_of[size - 1] + 1;
    std::vector<int64_t> read_by(size);  // the patch before the one that the next id lies in
    for (int64_t i = 0; i < size; ++i) read_by[i] = patch_of[i + 1] - 1;
    patch_of.pop_back();
    const at::Tensor patch_ids = torch::tensor(patch_of);
    const at::Tensor reader_ids = torch::tensor(read_by);
    const int64_t k = config_.cross_attn_k;
    const at::Tensor slot_patch = torch::arange(num_patches).repeat_interleave(k);
    const at::Tensor slots_see_bytes = slot_patch.unsqueeze(1) == patch_ids.unsqueeze(0);
    const at::Tensor bytes_see_slots = reader_ids.unsqueeze(1) == slot_patch.unsqueeze(0);

    // Encoder.
    const LocalEncoderImpl& encoder = *model_.local_encoder;
    const LocalEncoderConfig& encoder_config = config_.local_encoder;
    at::Tensor h = embed(document);
    at::Tensor patches;
    for (int64_t i = 0; i < encoder_config.layers; ++i) {
      h = layer(encoder.layers, i, h, encoder_config, config_.window);
      const bool all = encoder_config.cross_attention == EncoderCrossAttention::kAll;
      if (!all && i + 1 < encoder_config.layers) continue;
      if (!patches.defined() || encoder_config.patch_queries == PatchQueries::kRepool)
        patches = project(encoder.patch_embedding_projection,
                          pool(h, patch_ids, num_patches, encoder_config.pooling))
                      .reshape({num_patches * k, config_.local_dim});
      const auto& cross_layer = encoder.cross_attn_layers->at<CrossAttentionImpl>(all ? i : 0);
      patches = patches + cross(cross_layer, patches, h, slots_see_bytes, encoder_config);
    }
    patches = patches.reshape({num_patches, k * config_.local_dim});

    // Latent transformer.
    const LatentTransformerImpl& latent = *model_.latent_transformer;
    if (!latent.token_embedding_projection.is_empty())
      patches = project(latent.token_embedding_projection, patches);
    for (int64_t i = 0; i < config_.latent_transformer.layers; ++i)
      patches = layer(latent.layers, i, patches, config_.latent_transformer, 0);

    // Decoder.
    const LocalDecoderImpl& decoder = *model_.local_decoder;
    const LocalDecoderConfig& decoder_config = config_.local_decoder;
    if (!decoder.patch_embedding_projection.is_empty())
      patches = project(decoder.patch_embedding_projection, patches);
    if (decoder_config.cross_attention == DecoderCrossAttention::kNone)
      h = h + patches.index_select(0, reader_ids);
    else
      patches = patches.reshape({num_patches * k, config_.local_dim});
    for (int64_t i = 0; i < decoder_config.layers; ++i) {
      if (decoder_config.cross_attention == DecoderCrossAttention::kAll ||
          (decoder_config.cross_attention == DecoderCrossAttention::kFirst && i == 0))
        h = h + cross(decoder.cross_attn_layers->at<CrossAttentionImpl>(i), h, patches, bytes_see_slots,
                      decoder_config);
      h = layer(decoder.layers, i, h, decoder_config, config_.window);
    }
    h = norm(decoder.norm, h, decoder_config.norm_eps);
    return h.matmul((config_.tie_embeddings ? encoder.embedding->byte_table : model_.lm_head->weight).t());
  }

 private:
  static at::Tensor project(const Linear& linear, const at::Tensor& x) {
    return x.matmul(linear->weight.t());
  }

  static at::Tensor norm(const RmsNorm& norm, const at::Tensor& x, double eps) {
    return x * (x.pow(2).mean(-1, true) + eps).rsqrt() * norm->weight;
  }

  at::Tensor embed(const PatchedSequence& document) const {
    const NgramEmbeddingImpl& embedding = *model_.local_encoder->embedding;
    const Batch batch = Batch::pack({document});
    at::Tensor h = embedding.byte_table.index_select(0, batch.bytes);
    if (!embedding.ngram_table.defined()) return h;
    const at::Tensor rows = ops::ngram_ids(batch.bytes, batch.documents, embedding.hash());  // [S, tables]
    return h + embedding.ngram_table.index_select(0, rows.flatten()).view({h.size(0), -1, h.size(1)}).sum(1);
  }

  static at::Tensor pool(const at::Tensor& h, const at::Tensor& patch_ids, int64_t num_patches,
                         Pooling pooling) {
    std::vector<at::Tensor> rows;
    for (int64_t p = 0; p < num_patches; ++p) {
      const at::Tensor members = h.index_select(0, (patch_ids == p).nonzero().squeeze(1));
      rows.push_back(pooling == Pooling::kMax   ? std::get<0>(members.max(0))
                     : pooling == Pooling::kMin ? std::get<0>(members.min(0))
                                                : members.mean(0));
    }
    return torch::stack(rows);
  }

  // q [Nq, C], k and v [Nk, C of the key heads], mask [Nq, Nk]: who sees whom.
  static at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& mask, const TransformerConfig& config) {
    const int64_t width = q.size(-1) / config.heads;
    const int64_t group = config.heads / config.num_kv_heads();
    const auto heads = [&](const at::Tensor& x, int64_t repeat) {  // [H, N, E]
      return x.reshape({x.size(0), -1, width}).repeat_interleave(repeat, 1).transpose(0, 1);
    };
    at::Tensor scores =
        heads(q, 1).matmul(heads(k, group).transpose(1, 2)) / std::sqrt(static_cast<double>(width));
    scores = scores.masked_fill(mask.logical_not(), -INFINITY);
    return scores.softmax(-1).matmul(heads(v, group)).transpose(0, 1).reshape({q.size(0), -1});
  }

  static at::Tensor rotate(const at::Tensor& x, const TransformerConfig& config, int64_t width) {
    const at::Tensor heads = x.reshape({x.size(0), -1, width / 2, 2});
    const at::Tensor frequency = torch::pow(
        config.rope_theta, -torch::arange(0, width, 2, torch::kDouble) / static_cast<double>(width));
    const at::Tensor angle = torch::outer(torch::arange(x.size(0), torch::kDouble), frequency).to(x.dtype());
    const at::Tensor cos = angle.cos().unsqueeze(1), sin = angle.sin().unsqueeze(1);  // [N, 1, E / 2]
    const at::Tensor even = heads.select(-1, 0), odd = heads.select(-1, 1);
    return torch::stack({even * cos - odd * sin, even * sin + odd * cos}, -1).reshape(x.sizes());
  }

  static at::Tensor layer(const Layers& layers, int64_t i, const at::Tensor& x,
                          const TransformerConfig& config, int64_t window) {
    const auto& block = layers->at<TransformerLayerImpl>(i);
    const SelfAttention& attention = block.self_attn;
    const int64_t width = x.size(1) / config.heads;
    const at::Tensor n = norm(block.input_layernorm, x, config.norm_eps);
    const at::Tensor place = torch::arange(x.size(0));
    const at::Tensor distance = place.unsqueeze(1) - place.unsqueeze(0);
    at::Tensor mask = distance >= 0;
    if (window > 0) mask = mask.logical_and(distance < window);
    const at::Tensor seen = attend(rotate(project(attention->q_proj, n), config, width),
                                   rotate(project(attention->k_proj, n), config, width),
                                   project(attention->v_proj, n), mask, config);
    const at::Tensor h = x + project(attention->o_proj, seen);
    if (block.mlp.is_empty()) return h;
    const at::Tensor m = norm(block.post_attention_layernorm, h, config.norm_eps);
    return h + project(block.mlp->down_proj,
                       torch::silu(project(block.mlp->gate_proj, m)) * project(block.mlp->up_proj, m));
  }

  static at::Tensor cross(const CrossAttentionImpl& layer, const at::Tensor& x, const at::Tensor& kv,
                          const at::Tensor& mask, const TransformerConfig& config) {
    const at::Tensor q = norm(layer.q_norm, x, config.norm_eps);
    const at::Tensor m = norm(layer.k_norm, kv, config.norm_eps);
    return x + project(layer.o_proj, attend(project(layer.q_proj, q), project(layer.k_proj, m),
                                            project(layer.v_proj, m), mask, config));
  }

  const BltImpl& model_;
  const BltConfig& config_;
};

}  // namespace blt
