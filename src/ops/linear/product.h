// The product that every linear layer is made of, for operators that bring their own derivative.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

// a [M, K] b [K, N], any strides, of one dtype and device; the operator blt::product. No derivative: below autograd.
at::Tensor product(const at::Tensor& a, const at::Tensor& b);
// What a and b must be, wherever it is entered.
void check_factors(const at::Tensor& a, const at::Tensor& b);

}  // namespace blt::ops
