// Tensors [rows, heads, width] as attention kernels take them.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/constant_pad_nd.h>

#include "ops/cuda/glue.h"

namespace blt::ops::BLT_DEVICE {

inline void check_head_width(const char* op, const at::Tensor& q) {
  TORCH_CHECK(q.size(2) <= kMaxHeadWidth, op, ": on CUDA, heads are at most ", kMaxHeadWidth, " wide, got ",
              q.size(2));
}

// Rows of whole packs: themselves, or, where the head width is none (or odd), wider ones with zeros.
inline at::Tensor in_packs(const at::Tensor& x) {
  const int64_t pack = kPackBytes / static_cast<int64_t>(x.element_size());
  const int64_t missing = (pack - x.size(2) % pack) % pack;
  return ready(missing == 0 ? x : at::constant_pad_nd(x, {0, missing}));
}

inline at::Tensor without_padding(const at::Tensor& x, int64_t width) {
  return x.size(2) == width ? x : x.slice(2, 0, width).contiguous();
}

}  // namespace blt::ops::BLT_DEVICE
