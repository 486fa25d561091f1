// What arguments must be, wherever cross_entropy and its backward are entered.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

void check_cross_entropy(const at::Tensor& logits, const at::Tensor& targets);
void check_cross_entropy_backward(const at::Tensor& grad, const at::Tensor& logits, const at::Tensor& targets,
                                  const at::Tensor& softmax);

}  // namespace blt::ops
