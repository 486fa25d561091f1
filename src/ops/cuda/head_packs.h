// Tensors [rows, heads, width] as attention kernels take them.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/cuda/packs.h"

namespace blt::ops::BLT_DEVICE {

inline void check_head_width(const char* op, const at::Tensor& q) {
  TORCH_CHECK(q.size(2) <= kMaxHeadWidth, op, ": on CUDA, heads are at most ", kMaxHeadWidth, " wide, got ",
              q.size(2));
}

inline at::Tensor without_padding(const at::Tensor& x, int64_t width) {
  return x.size(2) == width ? x : x.slice(2, 0, width).contiguous();
}

}  // namespace blt::ops::BLT_DEVICE
