// A linear layer for training.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

//   x        [N, in]    floating
//   weight   [out, in]  of the same dtype and device
//   returns  [N, out]   x weight^T
//
// Differentiable in both; saves its inputs, computes only the gradients that are asked for. On the CPU, in float32 and float64, every element
// of its three products is a sum in an order that follows from the shapes: the same bits for any number of threads. (In 16 bits, and on
// CUDA, they are LibTorch's products.) Throws c10::Error on a wrong rank, width, dtype or device.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight);

}  // namespace blt::ops
