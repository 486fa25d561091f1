// Pools byte states into patch states.
#pragma once

#include <ATen/core/Tensor.h>

#include "blt/batch.h"

namespace blt {

enum class Pooling { kMax, kMean, kMin };

namespace ops {

//   x         [N, C]  floating
//   segments  N rows into P segments, none empty
//   returns   [P, C]  same dtype and device as x
//
// Row p is the element-wise maximum (or mean, or minimum) of the rows of x in segment p.
// Differentiable in x; the gradient of a maximum or minimum goes to its first winner. NaN wins. Deterministic
// on CPU and CUDA. Throws c10::Error on a wrong rank, dtype or device, or when segments do not cover x.
//
// Source: Byte Latent Transformer (arXiv:2412.09871), section 3.2.2.
at::Tensor segment_pool(const at::Tensor& x, const Segments& segments, Pooling pooling);

}  // namespace ops
}  // namespace blt
