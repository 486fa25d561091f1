// Tensors whose last dimension kernels read in whole packs.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/constant_pad_nd.h>

#include "ops/cuda/glue.h"

namespace blt::ops::BLT_DEVICE {

// The last size of `x`, rounded up to whole packs.
inline int64_t whole_packs(const at::Tensor& x) {
  const int64_t pack = kPackBytes / static_cast<int64_t>(x.element_size());
  return (x.size(-1) + pack - 1) / pack * pack;
}

// Rows of whole packs: themselves, or, where their width is none (or odd), wider ones with zeros.
inline at::Tensor in_packs(const at::Tensor& x) {
  const int64_t missing = whole_packs(x) - x.size(-1);
  return ready(missing == 0 ? x : at::constant_pad_nd(x, {0, missing}));
}

}  // namespace blt::ops::BLT_DEVICE
