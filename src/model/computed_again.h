// Activations that are computed again in the backward pass instead of being kept.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <functional>

namespace blt {

// compute(x), of which x alone is kept for the backward; that calls `compute` once more, with the random numbers of the first time (LibTorch's
// default generator on the CPU), and gives the gradients that it would have given otherwise, bit for bit. module: what owns the parameters that
// compute reads, besides x; it and what compute holds live until then. While gradients are recorded. Not for modules that keep something in
// their forward or backward (NgramEmbedding).
//
// Source: Chen et al., Training Deep Nets with Sublinear Memory Cost (arXiv:1604.06174).
at::Tensor computed_again(torch::nn::Module& module, const at::Tensor& x,
                          std::function<at::Tensor(const at::Tensor& x)> compute);

}  // namespace blt
