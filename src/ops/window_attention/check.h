// What window_attention's arguments must be, wherever it is entered.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

void check_window_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t window);

}  // namespace blt::ops
