// What q, k and v must be, wherever segment_attention is entered.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

void check_segment_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

}  // namespace blt::ops
