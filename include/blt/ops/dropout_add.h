// Dropout, fused with the residual sum that follows it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace blt::ops {

//   x            any shape, floating
//   probability  that an element is left out, in [0, 1]
//   seed         the same seed leaves the same elements out, on every machine and for any number of threads
//   residual     like x, added afterwards; undefined: nothing is
//   returns      like x: residual + x / (1 - probability) where x stays, residual elsewhere
//
// Differentiable in x and residual; saves no tensor: whether an element stays follows from the seed and its index (row-major), and the backward
// asks again. The random number of element i is the low half of i, put through the finaliser of MurmurHash3 twice, with keys made of the
// seed and of i's high half. Deterministic. Throws c10::Error on a probability that is none, and when residual is unlike x.
//
// Source: Srivastava et al., Dropout (JMLR 15, 2014), section 4, scaled in training rather than in use; Appleby, MurmurHash3 (fmix32).
at::Tensor dropout_add(const at::Tensor& x, double probability, int64_t seed,
                       const at::Tensor& residual = {});

}  // namespace blt::ops
