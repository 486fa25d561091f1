// dropout_add on CUDA: tensors to pointers.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include "ops/cuda/glue.h"
#include "ops/dropout_add/check.h"
#include "ops/dropout_add/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

using at::Tensor;

Tensor forward(const Tensor& x, const std::optional<Tensor>& residual, double probability, int64_t seed) {
  check_dropout_add(x, residual, probability);
  const Storage storage = storage_of("dropout_add", x);
  const OnDevice device(x);
  // Everything is left out: the threshold is no 32-bit number, and the scale is infinite.
  if (probability == 1) return residual ? residual->clone(at::MemoryFormat::Contiguous) : at::zeros_like(x);
  const Tensor x_ = ready(x), residual_ = residual ? ready(*residual) : Tensor();
  Tensor out = at::empty_like(x_);
  if (out.numel() == 0) return out;
  launch_dropout_add(storage,
                     {x_.const_data_ptr(), residual ? residual_.const_data_ptr() : nullptr,
                      out.mutable_data_ptr(), out.numel(), static_cast<float>(1 / (1 - probability)), seed,
                      static_cast<uint32_t>(dropout_threshold(probability))},
                     device.stream());
  return out;
}

BLT_CUDA_KERNELS(m) { m.impl("dropout_add", forward); }

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
