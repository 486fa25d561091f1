// packed_linear on the CPU: types and layouts.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "ops/packed_linear/check.h"
#include "ops/packed_linear/panels.h"

namespace blt::ops {
namespace {

using at::Tensor;

// [ceil(out / panel), in, panel]
Tensor pack(const Tensor& weight) {
  check_weight(weight);
  return make_panels(weight.to(panel_dtype(weight.scalar_type())).t());
}

Tensor forward(const Tensor& x, const Tensor& panels, int64_t out_features) {
  check_product(x, panels);
  check_panels(x, panels, out_features);
  const Tensor x_ = x.to(panels.scalar_type()).contiguous();
  return times_panels(x_, panels.contiguous(), out_features).to(x.scalar_type());
}

TORCH_LIBRARY_IMPL(blt, CPU, m) {
  m.impl("pack_weight", pack);
  m.impl("packed_linear", forward);
}

}  // namespace
}  // namespace blt::ops
