// rope on CUDA: tensors to pointers.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include "ops/cuda/glue.h"
#include "ops/rope/check.h"
#include "ops/rope/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

using at::Tensor;

// x into out, both ready for kernels; the two may be the same.
void turn(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin, bool inverse,
          const Tensor& out) {
  if (out.numel() == 0) return;
  const OnDevice device(x);
  const Tensor positions_ = positions.contiguous(), cos_ = ready(cos), sin_ = ready(sin);
  launch_rope(
      storage_of("rope", x),
      {x.const_data_ptr(), positions_.const_data_ptr<int32_t>(), cos_.const_data_ptr<float>(),
       sin_.const_data_ptr<float>(), out.mutable_data_ptr(), x.size(0), x.size(1), x.size(2), inverse},
      device.stream());
}

Tensor rotate(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin, bool inverse) {
  check_rope(x, positions, cos, sin);
  storage_of("rope", x);
  const Tensor x_ = ready(x);
  Tensor out = at::empty_like(x_);
  turn(x_, positions, cos, sin, inverse, out);
  return out;
}

void rotate_in_place(Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin, bool inverse) {
  check_rope(x, positions, cos, sin);
  storage_of("rope_", x);
  const Tensor x_ = ready(x);
  turn(x_, positions, cos, sin, inverse, x_);
  if (!x_.is_same(x)) x.copy_(x_);
}

BLT_CUDA_KERNELS(m) {
  m.impl("rope", rotate);
  m.impl("rope_", rotate_in_place);
}

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
