// Rotary position embeddings on interleaved pairs.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

//   x          [T, H, E]     floating, E even
//   positions  [T]           int32, each in [0, M)
//   cos, sin   [M, E / 2]    float32 (float64 for float64 x): cosine and sine of position * theta^(-2 i / E)
//   returns    [T, H, E]     same dtype and device as x: (x[2i] cos - x[2i+1] sin, x[2i] sin + x[2i+1] cos)
//
// Differentiable in x. Deterministic, row by row. Throws c10::Error on a wrong rank, an odd E, a wrong dtype
// or device, and (CPU) on a position outside the table.
//
// Source: Su et al., RoFormer (arXiv:2104.09864), equation 34.
at::Tensor rope(const at::Tensor& x, const at::Tensor& positions, const at::Tensor& cos,
                const at::Tensor& sin);

// The same in x's own memory: for a result that nothing else reads, not even its own derivative (that of a product does not). x must not be
// used again. Throws for a leaf that requires a gradient, too.
at::Tensor rope_in_place(at::Tensor x, const at::Tensor& positions, const at::Tensor& cos,
                         const at::Tensor& sin);

}  // namespace blt::ops
