// What x, positions and the tables must be, wherever rope is entered.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

void check_rope(const at::Tensor& x, const at::Tensor& positions, const at::Tensor& cos,
                const at::Tensor& sin);

}  // namespace blt::ops
