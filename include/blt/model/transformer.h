// The pre-norm transformer layer that the entropy model, the local models and the latent transformer are made
// of.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blt/base/config.h"
#include "blt/batch.h"
#include "blt/model/linear.h"
#include "blt/model/parameters.h"
#include "blt/model/traced.h"

namespace blt {

// Settings of a stack of layers. The configs of the four transformers derive from it, so their fields stand
// side by side.
struct TransformerConfig {
  int64_t layers = 1;
  int64_t heads = 12;
  std::optional<int64_t> kv_heads = {};
  std::optional<int64_t> ffn_dim = {};
  double rope_theta = 500000.0;
  double norm_eps = 1e-5;
  double dropout = 0.0;
  InitStdFactor init_std_factor = InitStdFactor::kDisabled;
  std::optional<double> init_base_std = {};

  static void fields(auto& self, auto&& field) {
    field("layers", self.layers, "Transformer layers.", at_least(1));
    field("heads", self.heads, "Attention heads; divides the width into even head widths.", at_least(1));
    field("kv_heads", self.kv_heads,
          "Heads of keys and values (grouped-query attention); divides heads. Default: heads.", at_least(1));
    field("ffn_dim", self.ffn_dim,
          "Hidden width of the feed-forward layers. Default: 8/3 of the width, rounded up to a multiple of "
          "256.",
          at_least(1));
    field("rope_theta", self.rope_theta, "Base of the rotary position embeddings.", above(0));
    field("norm_eps", self.norm_eps, "Added to the mean square before the root in RMSNorm.", above(0));
    field("dropout", self.dropout,
          "Probability of dropping a unit of a layer's two residual branches (and of what enters the first "
          "layer, in "
          "models that read bytes).",
          between(0, 0.999));
    field("init_std_factor", self.init_std_factor,
          "What divides the standard deviation of the initial matrices.");
    field("init_base_std", self.init_base_std,
          "Standard deviation of the initial matrices. Default: width^-0.5.", above(0));
  }
  void validate_width(int64_t dim, Errors& errors) const;

  int64_t num_kv_heads() const { return kv_heads.value_or(heads); }
  int64_t feed_forward_dim(int64_t dim) const;
  // Standard deviation of the matrices of layer `layer` that read `in` channels, in a stack of width `dim`.
  double init_std(int64_t in, int64_t dim, int64_t layer) const;
};

// Cosines and sines of rotary positions, grown as longer documents are seen: those of the references' float32 angles, on every device. Thread-safe.
class RotaryTable {
 public:
  RotaryTable(int64_t head_dim, double theta);
  ~RotaryTable();

  struct View {
    at::Tensor cos, sin;  // [at least `length`, head_dim / 2]
  };
  View view(int64_t length, const at::TensorOptions& options) const;

 private:
  struct Cache;
  int64_t head_dim_;
  double theta_;
  std::unique_ptr<Cache> cache_;
};

struct AttentionContext;

// Stands between a layer's projections and its attention, and keeps keys and values for rows to come: what
// generation puts there (generate/).
class AttentionStore {
 public:
  virtual ~AttentionStore() = default;

  // q [N, H, E], k and v [N, Hkv, E] of layer `layer`, turned to their positions. Returns [N, H, E]: what each
  // query sees.
  virtual at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionContext& context, double scale) = 0;
};

// What every layer of a stack needs to know about the rows of one step; made once a step by Layers::context.
struct AttentionContext {
  Segments documents;               // rows into documents: who may see whom
  int64_t window = 0;               // 0: everything before
  at::Tensor positions = {};        // [N] int32: place in the document
  at::Tensor cos, sin;              // rotary tables
  AttentionStore* store = nullptr;  // null: rows see the rows of their document in this step alone
};

// A residual stream, and what is still to be added to it, both [N, C].
struct Residual {
  at::Tensor stream, branch;
};

class SelfAttentionImpl : public torch::nn::Module, public Traced {
 public:
  SelfAttentionImpl(const TransformerConfig& config, int64_t dim, int64_t layer);

  // Attention among the rows of norm(x). x [N, C]
  Residual forward(const RmsNorm& norm, const at::Tensor& x, const AttentionContext& context);

  Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, o_proj{nullptr};

 private:
  int64_t head_dim_, layer_;
};
TORCH_MODULE(SelfAttention);

class FeedForwardImpl : public torch::nn::Module, public Traced {
 public:
  FeedForwardImpl(const TransformerConfig& config, int64_t dim, int64_t layer);

  // down(silu(gate(y)) * up(y)) with y = norm(before.stream + before.branch), where the branch may be undefined.
  Residual forward(const RmsNorm& norm, Residual before);

  Linear gate_proj{nullptr}, up_proj{nullptr}, down_proj{nullptr};
};
TORCH_MODULE(FeedForward);

// h = x + attention(norm(x)); returns h + feed_forward(norm(h)). Without a feed-forward: h (the simplified
// encoder).
class TransformerLayerImpl : public torch::nn::Module, public Traced {
 public:
  TransformerLayerImpl(const TransformerConfig& config, int64_t dim, int64_t layer, bool feed_forward = true);

  at::Tensor forward(const at::Tensor& x, const AttentionContext& context);  // [N, C] -> [N, C]

  RmsNorm input_layernorm{nullptr}, post_attention_layernorm{nullptr};
  SelfAttention self_attn{nullptr};
  FeedForward mlp{nullptr};
  // Whether the forward keeps x alone for the backward, which then computes the layer once more: the same numbers, bit for bit, for less memory and
  // another forward's time. The context must not change until then.
  bool recompute = false;

 private:
  at::Tensor compute(const at::Tensor& x, const AttentionContext& context);

  double dropout_;
};
TORCH_MODULE(TransformerLayer);

// Sets `recompute` for the layers below `model` whose names (latent_transformer.layers.3) match one of the patterns; * is any text, ? any
// character. Throws blt::Error when a pattern matches none.
void recompute_layers(torch::nn::Module& model, const std::vector<std::string>& patterns);

// Is told when a layer of a stack needs its parameters: who keeps them elsewhere between uses (train/zero3.h).
class LayerWatch {
 public:
  virtual ~LayerWatch() = default;

  virtual void before(size_t layer) = 0;
  virtual void after(size_t layer, const at::Tensor& y) = 0;  // y: what it gave, [N, C]
};

// The layers of one stack and their rotary table. Not a level of its own in checkpoints: its parent registers
// it as `layers`.
class LayersImpl : public torch::nn::ModuleListImpl {
 public:
  LayersImpl(const TransformerConfig& config, int64_t dim, int64_t window, bool feed_forward = true);

  AttentionContext context(const Segments& documents, const at::Tensor& like) const;
  // Of rows at any positions [N] int32, each below `length`, whose keys and values `store` keeps.
  AttentionContext context(const at::Tensor& positions, int64_t length, AttentionStore& store,
                           const at::Tensor& like) const;
  at::Tensor layer(size_t i, const at::Tensor& x, const AttentionContext& context);  // one layer
  at::Tensor forward_in(at::Tensor x, const AttentionContext& context);              // all of them
  at::Tensor forward(const at::Tensor& x, const Segments& documents);                // all of them

  LayerWatch* watch = nullptr;  // null: nobody; not owned

 private:
  int64_t window_;
  RotaryTable rotary_;
};
TORCH_MODULE(Layers);

}  // namespace blt
