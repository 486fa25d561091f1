// rope on CUDA: tensors to pointers.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include "ops/cuda/glue.h"
#include "ops/rope/check.h"
#include "ops/rope/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

using at::Tensor;

Tensor rotate(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin, bool inverse) {
  check_rope(x, positions, cos, sin);
  const Storage storage = storage_of("rope", x);
  const OnDevice device(x);
  const Tensor x_ = ready(x), positions_ = positions.contiguous(), cos_ = ready(cos), sin_ = ready(sin);
  Tensor out = at::empty_like(x_);
  if (out.numel() == 0) return out;
  launch_rope(
      storage,
      {x_.const_data_ptr(), positions_.const_data_ptr<int32_t>(), cos_.const_data_ptr<float>(),
       sin_.const_data_ptr<float>(), out.mutable_data_ptr(), x.size(0), x.size(1), x.size(2), inverse},
      device.stream());
  return out;
}

BLT_CUDA_KERNELS(m) { m.impl("rope", rotate); }

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
