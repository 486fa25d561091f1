// What arguments must be, wherever swiglu and its backward are entered.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

void check_swiglu(const at::Tensor& gate, const at::Tensor& up);
void check_swiglu_backward(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up);

}  // namespace blt::ops
