// packed_linear on CUDA: tensors to pointers. A packed weight is a copy of the weight itself, with rows of whole packs.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "ops/cuda/glue.h"
#include "ops/cuda/packs.h"
#include "ops/packed_linear/check.h"
#include "ops/packed_linear/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

using at::Tensor;

Tensor pack(const Tensor& weight) {
  check_weight(weight);
  storage_of("pack_weight", weight);
  const Tensor packed = in_packs(weight);
  return packed.is_alias_of(weight) ? packed.clone() : packed;
}

Tensor forward(const Tensor& x, const Tensor& weight, int64_t columns) {
  check_product(x, weight);
  const Storage storage = storage_of("packed_linear", x);
  TORCH_CHECK(weight.scalar_type() == x.scalar_type() && weight.dim() == 2 && weight.size(0) == columns &&
                  weight.size(1) == whole_packs(x),
              "packed_linear: ", weight.scalar_type(), " ", weight.sizes(), " is not how a weight of ",
              x.scalar_type(), " [", columns, ", ", x.size(1), "] is packed");
  const OnDevice device(x);
  const Tensor out = at::empty({x.size(0), columns}, x.options());
  if (x.size(1) == 0) return out.zero_();
  if (out.numel() == 0) return out;
  const Tensor x_ = in_packs(x), weight_ = ready(weight);
  launch_packed_linear(
      storage,
      {x_.const_data_ptr(), weight_.const_data_ptr(), out.mutable_data_ptr(), x.size(0), x_.size(1), columns},
      device.stream());
  return out;
}

BLT_CUDA_KERNELS(m) {
  m.impl("pack_weight", pack);
  m.impl("packed_linear", forward);
}

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
