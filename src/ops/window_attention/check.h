// What arguments must be, wherever window_attention and its backward are entered.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

void check_window_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor& offsets, int64_t window);
void check_window_attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                     const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                                     const at::Tensor& offsets, int64_t window);

}  // namespace blt::ops
