// The gated activation of the feed-forward layers, fused.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

//   gate, up  [N, F]  floating, same dtype and device
//   returns   [N, F]  silu(gate) * up
//
// Differentiable in both; saves its two inputs. Deterministic; a row's result does not depend on the others,
// bit for bit. Throws c10::Error on shapes, dtypes or devices that differ.
//
// Source: Shazeer, GLU Variants Improve Transformer (arXiv:2002.05202), equation 6.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

}  // namespace blt::ops
