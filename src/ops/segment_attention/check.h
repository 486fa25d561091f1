// What arguments must be, wherever segment_attention and its backward are entered.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

void check_segment_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const at::Tensor& q_offsets, const at::Tensor& k_offsets);
void check_segment_attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                      const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                                      const at::Tensor& q_offsets, const at::Tensor& k_offsets);

}  // namespace blt::ops
