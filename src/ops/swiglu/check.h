// What gate and up must be, wherever swiglu is entered.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

void check_swiglu(const at::Tensor& gate, const at::Tensor& up);

}  // namespace blt::ops
