// A norm and the products that read it, which keep nothing between them.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace blt::ops {

//   x        [N, C]      floating
//   gain     [C]         same dtype and device
//   weights  [out_i, C]  likewise, one or more
//   returns  [N, out_i]  linear(rms_norm(x, gain, eps), weights[i]), bit for bit
//
// Differentiable in x, gain and all weights. Saves its inputs; the normalised rows [N, C], which the gradients of the weights read, are
// computed again in the backward, in the time of reading x. What the products pass back to the norm is added up from the last weight to
// the first: the order in which autograd meets separate linears. Computes no gradient that nobody asked for, nor that of a result nobody
// used. Throws c10::Error without a weight, and as rms_norm and linear do.
std::vector<at::Tensor> rms_norm_linears(const at::Tensor& x, const at::Tensor& gain, double eps,
                                         at::TensorList weights);

struct StreamLinears {
  at::Tensor stream;                // [N, C]: x + added, or x (the same memory) where nothing is added
  std::vector<at::Tensor> results;  // rms_norm_linears(stream, gain, eps, weights)
};
//   added    [N, C]      like x, or undefined: nothing is added
//
// A pre-norm branch of a residual stream, and the stream for what the branch gives to be added to. The sum is made with the norm, and in the
// backward the stream's own gradient is added where the norm's is made (and both rounded once): a pass over memory less each (add_rms_norm).
// Differentiable in `added` too. Saves the stream, gain and weights.
StreamLinears stream_norm_linears(const at::Tensor& x, const at::Tensor& added, const at::Tensor& gain,
                                  double eps, at::TensorList weights);

}  // namespace blt::ops
