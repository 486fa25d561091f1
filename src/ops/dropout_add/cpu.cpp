// dropout_add on the CPU: tensors to pointers, elements to threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "ops/cpu/kernel_type.h"
#include "ops/dropout_add/check.h"
#include "ops/dropout_add/cpu_kernel.h"

namespace blt::ops {
namespace {

using at::Tensor;

constexpr int64_t kGrain = 16384;  // elements

Tensor forward(const Tensor& x, const std::optional<Tensor>& residual, double probability, int64_t seed) {
  check_dropout_add(x, residual, probability);
  const auto type = kernel_type(x);
  // Everything is left out: the threshold is no 32-bit number, and the scale is infinite.
  if (probability == 1) return residual ? residual->clone(at::MemoryFormat::Contiguous) : at::zeros_like(x);
  const Tensor x_ = ready(x, type), residual_ = residual ? ready(*residual, type) : Tensor();
  Tensor out = at::empty_like(x_);
  with_type(type, [&]<class T>(T) {
    const DropoutAdd<T> a{x_.const_data_ptr<T>(),
                          residual ? residual_.const_data_ptr<T>() : nullptr,
                          out.data_ptr<T>(),
                          static_cast<T>(1 / (1 - probability)),
                          seed,
                          static_cast<uint32_t>(dropout_threshold(probability))};
    const auto kernel = BLT_KERNEL(dropout_add<T>);
    at::parallel_for(0, out.numel(), kGrain, [&](int64_t first, int64_t last) { kernel(a, first, last); });
  });
  return out.to(x.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(blt, CPU, m) { m.impl("dropout_add", forward); }

}  // namespace blt::ops
