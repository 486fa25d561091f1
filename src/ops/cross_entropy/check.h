// What logits and targets must be, wherever cross_entropy is entered.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

void check_cross_entropy(const at::Tensor& logits, const at::Tensor& targets);

}  // namespace blt::ops
