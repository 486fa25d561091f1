// Root-mean-square normalisation, fused.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

//   x        [N, C]  floating
//   weight   [C]     same dtype and device
//   returns  [N, C]  weight * (x / sqrt(mean(x^2) + eps)); the mean and the root in float32 (float64 for
//   float64 input)
//
// Differentiable in x and weight; saves x and one float per row. Deterministic; a row's result does not
// depend on the others, bit for bit. Throws c10::Error on a wrong rank, width, dtype or device.
//
// Source: Zhang and Sennrich, Root Mean Square Layer Normalization (arXiv:1910.07467), equation 4.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

struct NormedSum {
  at::Tensor sum;     // x + added
  at::Tensor normed;  // rms_norm(sum, weight, eps)
};
//   added    [N, C]  like x
//
// Both bit for bit, the sum rounded to the dtype first; one pass over memory where two operators take two. So does the backward: the
// gradient that reaches the sum directly is added to the norm's where that is made (and rounded once). Saves the sum and one float per
// row. Throws as rms_norm, and when `added` is unlike x.
NormedSum add_rms_norm(const at::Tensor& x, const at::Tensor& added, const at::Tensor& weight, double eps);

}  // namespace blt::ops
