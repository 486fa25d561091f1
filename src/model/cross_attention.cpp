#include "blt/model/cross_attention.h"

#include <cmath>

#include "blt/ops/segment_attention.h"
#include "model/trace_range.h"

namespace blt {

CrossAttentionImpl::CrossAttentionImpl(const TransformerConfig& config, int64_t dim, int64_t layer)
    : head_dim_(dim / config.heads) {
  const int64_t kv_dim = head_dim_ * config.num_kv_heads();
  const double std = config.init_std(dim, dim, layer);
  q_norm = register_module("q_norm", RmsNorm(dim, config.norm_eps));
  k_norm = register_module("k_norm", RmsNorm(dim, config.norm_eps));
  q_proj = register_module("q_proj", Linear(dim, dim, std));
  k_proj = register_module("k_proj", Linear(dim, kv_dim, std));
  v_proj = register_module("v_proj", Linear(dim, kv_dim, std));
  o_proj = register_module("o_proj", Linear(dim, dim, std));
}

at::Tensor CrossAttentionImpl::forward(const at::Tensor& x, const at::Tensor& kv, const Segments& x_segments,
                                       const Segments& kv_segments) {
  return attend(x, memory(kv), x_segments, kv_segments);
}

CrossAttentionImpl::Memory CrossAttentionImpl::memory(const at::Tensor& kv) {
  const TraceRange range(trace_name);
  const auto heads = [&](const at::Tensor& y) { return y.view({y.size(0), -1, head_dim_}); };
  const auto [k, v] = norm_linears(k_norm, kv, k_proj, v_proj);
  return {heads(k), heads(v)};
}

at::Tensor CrossAttentionImpl::attend(const at::Tensor& x, const Memory& memory, const Segments& x_segments,
                                      const Segments& memory_segments) {
  const TraceRange range(trace_name);
  const auto [stream, projected] = stream_linears(q_norm, x, {}, q_proj);
  const at::Tensor q = projected[0].view({x.size(0), -1, head_dim_});
  const double scale = 1.0 / std::sqrt(static_cast<double>(head_dim_));
  const at::Tensor seen = ops::segment_attention(q, memory.k, memory.v, x_segments, memory_segments, scale);
  return stream + o_proj(seen.view({x.size(0), -1}));
}

}  // namespace blt
