#include "blt/model/transformer.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <mutex>
#include <string>
#include <utility>

#include "blt/base/error.h"
#include "blt/ops/rope.h"
#include "blt/ops/window_attention.h"
#include "model/computed_again.h"
#include "model/dropout.h"
#include "model/sent.h"
#include "model/trace_range.h"

namespace blt {

void TransformerConfig::validate_width(int64_t dim, Errors& errors) const {
  if (dim % heads != 0 || (dim / heads) % 2 != 0)
    errors.add("heads",
               std::to_string(heads) + " heads do not cut the width " + std::to_string(dim) +
                   " into even head widths; choose heads so that width / heads is an even whole number");
  if (heads % num_kv_heads() != 0)
    errors.add("kv_heads",
               std::to_string(num_kv_heads()) + " does not divide heads = " + std::to_string(heads));
}

int64_t TransformerConfig::feed_forward_dim(int64_t dim) const {
  constexpr int64_t kMultiple = 256;
  return ffn_dim.value_or((8 * dim / 3 + kMultiple - 1) / kMultiple * kMultiple);
}

double TransformerConfig::init_std(int64_t in, int64_t dim, int64_t layer) const {
  const double base = init_base_std.value_or(1.0 / std::sqrt(static_cast<double>(in)));
  switch (init_std_factor) {
    case InitStdFactor::kDisabled:
      return base;
    case InitStdFactor::kCurrentDepth:
      return base / std::sqrt(2.0 * static_cast<double>(layer + 1));
    case InitStdFactor::kGlobalDepth:
      return base / std::sqrt(2.0 * static_cast<double>(layers + 1));
    case InitStdFactor::kDimRatio:
      return base / (static_cast<double>(dim) / 4096.0);
  }
  return base;
}

// One table, of the dtype and device asked for last; a model lives on one device in one dtype.
struct RotaryTable::Cache {
  std::mutex mutex;
  at::Tensor frequency;
  View view;
};

namespace {

// The same float32 steps as the references, so that long positions agree too; on the CPU for every device, since powers differ between devices
// by their last bit, and position 65,536 makes 0.004 radians of that. Does not wait for the device.
at::Tensor frequencies(int64_t head_dim, double theta, const at::TensorOptions& options) {
  const at::Tensor exponent =
      at::arange(0, head_dim, 2, options.device(at::kCPU)).div_(static_cast<double>(head_dim));
  return sent(at::pow(theta, exponent).reciprocal_(), options.device());
}

}  // namespace

RotaryTable::RotaryTable(int64_t head_dim, double theta)
    : head_dim_(head_dim), theta_(theta), cache_(std::make_unique<Cache>()) {}

RotaryTable::~RotaryTable() = default;

RotaryTable::View RotaryTable::view(int64_t length, const at::TensorOptions& options) const {
  const auto dtype = options.dtype().toScalarType() == at::kDouble ? at::kDouble : at::kFloat;
  const auto table_options = options.dtype(dtype).requires_grad(false);
  const std::lock_guard lock(cache_->mutex);
  View& view = cache_->view;
  if (!view.cos.defined() || view.cos.size(0) < length || view.cos.dtype() != table_options.dtype() ||
      view.cos.device() != table_options.device()) {
    const at::NoGradGuard no_grad;
    const auto rows =
        static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(length, 256))));
    at::Tensor& frequency = cache_->frequency;
    if (!view.cos.defined() || frequency.dtype() != table_options.dtype() ||
        frequency.device() != table_options.device())
      frequency = frequencies(head_dim_, theta_, table_options);
    // Products are rounded alike everywhere; cosines and sines differ by their last bit.
    const at::Tensor angle = at::outer(at::arange(rows, table_options), frequency);
    view = {angle.cos(), angle.sin()};
  }
  return view;
}

SelfAttentionImpl::SelfAttentionImpl(const TransformerConfig& config, int64_t dim, int64_t layer)
    : head_dim_(dim / config.heads), layer_(layer) {
  const int64_t kv_dim = head_dim_ * config.num_kv_heads();
  const double std = config.init_std(dim, dim, layer);
  q_proj = register_module("q_proj", Linear(dim, dim, std));
  k_proj = register_module("k_proj", Linear(dim, kv_dim, std));
  v_proj = register_module("v_proj", Linear(dim, kv_dim, std));
  o_proj = register_module("o_proj", Linear(dim, dim, std));
}

Residual SelfAttentionImpl::forward(const RmsNorm& norm, const at::Tensor& x,
                                    const AttentionContext& context) {
  const TraceRange range(trace_name);
  const int64_t rows = x.size(0);
  const auto heads = [&](const at::Tensor& y) { return y.view({rows, -1, head_dim_}); };
  auto [stream, projected] = stream_linears(norm, x, {}, q_proj, k_proj, v_proj);
  auto& [q, k, v] = projected;
  q = ops::rope_in_place(heads(q), context.positions, context.cos, context.sin);
  k = ops::rope_in_place(heads(k), context.positions, context.cos, context.sin);
  v = heads(v);
  const double scale = 1.0 / std::sqrt(static_cast<double>(head_dim_));
  const at::Tensor seen = context.store != nullptr
                              ? context.store->attend(layer_, q, k, v, context, scale)
                              : ops::window_attention(q, k, v, context.documents, context.window, scale);
  return {stream, o_proj(seen.view({rows, -1}))};
}

FeedForwardImpl::FeedForwardImpl(const TransformerConfig& config, int64_t dim, int64_t layer) {
  const int64_t hidden = config.feed_forward_dim(dim);
  gate_proj = register_module("gate_proj", Linear(dim, hidden, config.init_std(dim, dim, layer)));
  up_proj = register_module("up_proj", Linear(dim, hidden, config.init_std(dim, dim, layer)));
  down_proj = register_module("down_proj", Linear(hidden, dim, config.init_std(hidden, dim, layer)));
}

Residual FeedForwardImpl::forward(const RmsNorm& norm, Residual before) {
  const TraceRange range(trace_name);
  const auto [stream, projected] = stream_linears(norm, before.stream, before.branch, gate_proj, up_proj);
  before = {};  // nobody needs it any more
  return {stream, down_proj->forward_gated(projected[0], projected[1])};
}

TransformerLayerImpl::TransformerLayerImpl(const TransformerConfig& config, int64_t dim, int64_t layer,
                                           bool feed_forward)
    : dropout_(config.dropout) {
  self_attn = register_module("self_attn", SelfAttention(config, dim, layer));
  input_layernorm = register_module("input_layernorm", RmsNorm(dim, config.norm_eps));
  if (!feed_forward) return;
  mlp = register_module("mlp", FeedForward(config, dim, layer));
  post_attention_layernorm = register_module("post_attention_layernorm", RmsNorm(dim, config.norm_eps));
}

at::Tensor TransformerLayerImpl::forward(const at::Tensor& x, const AttentionContext& context) {
  const TraceRange range(trace_name);
  if (!recompute || !at::GradMode::is_enabled()) return compute(x, context);
  return computed_again(*this, x,
                        [this, context](const at::Tensor& again) { return compute(again, context); });
}

at::Tensor TransformerLayerImpl::compute(const at::Tensor& x, const AttentionContext& context) {
  const auto sum = [&](const Residual& h) {
    return module_dropout(h.branch, dropout_, is_training(), h.stream);
  };
  Residual h = self_attn(input_layernorm, x, context);
  if (mlp.is_empty()) return sum(h);
  if (is_training() && dropout_ > 0) h = {sum(h), {}};
  return sum(mlp(post_attention_layernorm, std::move(h)));
}

void recompute_layers(torch::nn::Module& model, const std::vector<std::string>& patterns) {
  std::vector<bool> used(patterns.size(), false);
  std::string layers;  // some of their names
  for (const auto& item : model.named_modules()) {
    auto* layer = item.value()->as<TransformerLayerImpl>();
    if (layer == nullptr) continue;
    layer->recompute = false;
    layers = item.key();
    for (size_t i = 0; i < patterns.size(); ++i)
      if (fnmatch(patterns[i].c_str(), item.key().c_str(), 0) == 0) layer->recompute = used[i] = true;
  }
  for (size_t i = 0; i < patterns.size(); ++i)
    if (!used[i])
      throw Error(fmt::format("recompute: the pattern {} matches no layer; they have names such as {}",
                              patterns[i], layers));
}

LayersImpl::LayersImpl(const TransformerConfig& config, int64_t dim, int64_t window, bool feed_forward)
    : window_(window), rotary_(dim / config.heads, config.rope_theta) {
  for (int64_t i = 0; i < config.layers; ++i) push_back(TransformerLayer(config, dim, i, feed_forward));
}

AttentionContext LayersImpl::context(const Segments& documents, const at::Tensor& like) const {
  const RotaryTable::View table = rotary_.view(documents.longest, like.options());
  return {documents, window_, documents.positions(), table.cos, table.sin};
}

AttentionContext LayersImpl::context(const at::Tensor& positions, int64_t length, AttentionStore& store,
                                     const at::Tensor& like) const {
  const RotaryTable::View table = rotary_.view(length, like.options());
  return {{}, window_, positions, table.cos, table.sin, &store};
}

at::Tensor LayersImpl::layer(size_t i, const at::Tensor& x, const AttentionContext& context) {
  if (watch != nullptr) watch->before(i);
  at::Tensor y = at<TransformerLayerImpl>(i).forward(x, context);
  if (watch != nullptr) watch->after(i, y);
  return y;
}

at::Tensor LayersImpl::forward_in(at::Tensor x, const AttentionContext& context) {
  for (size_t i = 0; i < size(); ++i) x = layer(i, x, context);
  return x;
}

at::Tensor LayersImpl::forward(const at::Tensor& x, const Segments& documents) {
  return forward_in(x, context(documents, x));
}

}  // namespace blt
