// A linear layer for training.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

//   x        [N, in]    floating
//   weight   [out, in]  of the same dtype and device
//   returns  [N, out]   x weight^T
//
// Differentiable in both; saves its inputs, computes only the gradients that are asked for. Its three products are those of a matrix
// library, of the one that is faster on this machine: deterministic for one number of threads, but a row may round otherwise when
// there are more or fewer rows (packed_linear does not). Throws c10::Error on a wrong rank, width, dtype or device.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight);

}  // namespace blt::ops
