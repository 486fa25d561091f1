// Bytes into byte states and, by pooling and cross-attention, into patch states (section 3.2 of the paper).
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
#include "blt/model/ngram_embedding.h"
#include "blt/model/traced.h"
#include "blt/model/transformer.h"
#include "blt/ops/segment_pool.h"

namespace blt {

template <>
struct EnumNames<Pooling> {
  static constexpr std::pair<Pooling, std::string_view> kValues[] = {
      {Pooling::kMax, "max"}, {Pooling::kMean, "mean"}, {Pooling::kMin, "min"}};
};

// Which encoder layers have a cross-attention into the patches after them.
enum class EncoderCrossAttention { kLast, kAll };
template <>
struct EnumNames<EncoderCrossAttention> {
  static constexpr std::pair<EncoderCrossAttention, std::string_view> kValues[] = {
      {EncoderCrossAttention::kLast, "last"}, {EncoderCrossAttention::kAll, "all"}};
};

// Where the queries of the second and later cross-attentions come from.
enum class PatchQueries {
  kAccumulate,  // the patch states so far (the paper)
  kRepool,      // pooled anew, earlier results dropped (transformers' port)
};
template <>
struct EnumNames<PatchQueries> {
  static constexpr std::pair<PatchQueries, std::string_view> kValues[] = {
      {PatchQueries::kAccumulate, "accumulate"}, {PatchQueries::kRepool, "repool"}};
};

struct LocalEncoderConfig : TransformerConfig {
  bool feed_forward = true;
  Pooling pooling = Pooling::kMax;
  EncoderCrossAttention cross_attention = EncoderCrossAttention::kLast;
  PatchQueries patch_queries = PatchQueries::kAccumulate;

  static void fields(auto& self, auto&& field) {
    TransformerConfig::fields(self, field);
    field("feed_forward", self.feed_forward,
          "Whether layers have a feed-forward part; without: attention only.");
    field("pooling", self.pooling, "How a patch's bytes are pooled into its first queries.");
    field("cross_attention", self.cross_attention,
          "Cross-attention after the last layer or after all of them.");
    field("patch_queries", self.patch_queries,
          "With several cross-attentions: go on from the patch states, or pool again.");
  }
};

class LocalEncoderImpl : public torch::nn::Module, public Traced {
 public:
  // dim: width of byte states; k: query slots a patch; window: bytes that a byte sees (0: all before it).
  LocalEncoderImpl(const LocalEncoderConfig& config, const NgramConfig& ngram, int64_t dim, int64_t k,
                   int64_t window);

  struct Output {
    at::Tensor bytes;    // [T, C]
    at::Tensor patches;  // [P, k * C]
  };
  Output forward(const Batch& batch);

  // The two halves of forward, which generation runs at different times.
  // embeddings [T, C] -> the byte states [T, C] after each layer that has a cross-attention; the last are those
  // after the last layer.
  std::vector<at::Tensor> states(const at::Tensor& embeddings, const AttentionContext& context);
  // Such states of the bytes of P patches -> [P, k * C].
  at::Tensor patches(const std::vector<at::Tensor>& states, const Segments& patches);

  NgramEmbedding embedding{nullptr};
  Layers layers{nullptr};
  Linear patch_embedding_projection{nullptr};
  torch::nn::ModuleList cross_attn_layers{nullptr};

 private:
  LocalEncoderConfig config_;
  int64_t dim_, k_;
};
TORCH_MODULE(LocalEncoder);

}  // namespace blt
