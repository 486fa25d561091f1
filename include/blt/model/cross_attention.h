// Cross-attention between bytes and patches, each patch's segment with its own (sections 3.2.2 and 3.3.1 of
// the paper).
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "blt/batch.h"
#include "blt/model/linear.h"
#include "blt/model/traced.h"
#include "blt/model/transformer.h"

namespace blt {

// x + o_proj(segment_attention(q_proj(norm_q(x)), k_proj(norm_kv(kv)), v_proj(norm_kv(kv)))). No positions,
// no mask: segment i of the rows of x sees segment i of the rows of kv.
class CrossAttentionImpl : public torch::nn::Module, public Traced {
 public:
  CrossAttentionImpl(const TransformerConfig& config, int64_t dim, int64_t layer);

  // x [Nq, C], kv [Nk, C] -> [Nq, C]
  at::Tensor forward(const at::Tensor& x, const at::Tensor& kv, const Segments& x_segments,
                     const Segments& kv_segments);

  // The same in two halves, for queries that come later than what they see.
  struct Memory {
    at::Tensor k, v;  // [Nk, Hkv, E]
  };
  Memory memory(const at::Tensor& kv);
  at::Tensor attend(const at::Tensor& x, const Memory& memory, const Segments& x_segments,
                    const Segments& memory_segments);

  Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, o_proj{nullptr};
  RmsNorm q_norm{nullptr}, k_norm{nullptr};

 private:
  int64_t head_dim_;
};
TORCH_MODULE(CrossAttention);

}  // namespace blt
