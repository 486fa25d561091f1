// rope on the CPU: tensors to pointers, rows to threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "ops/cpu/kernel_type.h"
#include "ops/rope/check.h"
#include "ops/rope/cpu_kernel.h"

namespace blt::ops {
namespace {

using at::Tensor;

// x into out, contiguous ones of the kernel's type; the two may be the same.
void turn(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin, bool inverse,
          const Tensor& out) {
  const Tensor positions_ = positions.contiguous(), cos_ = cos.contiguous(), sin_ = sin.contiguous();
  const int32_t* rows = positions_.const_data_ptr<int32_t>();
  for (int64_t t = 0; t < x.size(0); ++t)
    TORCH_CHECK(rows[t] >= 0 && rows[t] < cos.size(0), "rope: position ", rows[t], " of row ", t,
                " is outside the table of ", cos.size(0));
  with_type(x.scalar_type(), [&]<class T>(T) {
    const Rope<T> a{x.const_data_ptr<T>(),
                    rows,
                    cos_.const_data_ptr<T>(),
                    sin_.const_data_ptr<T>(),
                    out.data_ptr<T>(),
                    x.size(1),
                    x.size(2),
                    inverse};
    const auto kernel = BLT_KERNEL(rope<T>);
    at::parallel_for(0, x.size(0), row_grain(a.heads * a.width),
                     [&](int64_t first, int64_t last) { kernel(a, first, last); });
  });
}

Tensor rope_cpu(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin,
                bool inverse) {
  check_rope(x, positions, cos, sin);
  const Tensor x_ = ready(x, kernel_type(x));
  Tensor out = at::empty_like(x_);
  turn(x_, positions, cos, sin, inverse, out);
  return out.to(x.scalar_type());
}

void rope_in_place_cpu(Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin,
                       bool inverse) {
  check_rope(x, positions, cos, sin);
  if (x.is_contiguous() && x.scalar_type() == kernel_type(x))
    turn(x, positions, cos, sin, inverse, x);
  else
    x.copy_(rope_cpu(x, positions, cos, sin, inverse));
}

}  // namespace

TORCH_LIBRARY_IMPL(blt, CPU, m) {
  m.impl("rope", rope_cpu);
  m.impl("rope_", rope_in_place_cpu);
}

}  // namespace blt::ops
