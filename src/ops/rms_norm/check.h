// What x and weight must be, wherever rms_norm is entered.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

void check_rms_norm(const at::Tensor& x, const at::Tensor& weight);

}  // namespace blt::ops
