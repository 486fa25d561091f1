// segment_pool on CUDA: tensors to pointers.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "ops/cuda/glue.h"
#include "ops/segment_pool/check.h"
#include "ops/segment_pool/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

using at::Tensor;

PoolRule rule_of(Pooling pooling) {
  return pooling == Pooling::kMax   ? PoolRule::kMax
         : pooling == Pooling::kMin ? PoolRule::kMin
                                    : PoolRule::kMean;
}

std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& offsets, int64_t, std::string_view name) {
  check_segment_pool(x, offsets);
  const PoolRule rule = rule_of(pooling_named(name));
  const Storage storage = storage_of("segment_pool", x);
  const OnDevice device(x);
  const int64_t segments = offsets.numel() - 1, columns = x.size(1);
  const Tensor x_ = ready(x);
  Tensor out = at::empty({segments, columns}, x.options());
  Tensor winners = at::empty({rule == PoolRule::kMean ? 0 : segments, columns}, x.options().dtype(at::kInt));
  if (out.numel() == 0) return {out, winners};
  launch_segment_pool(storage, rule,
                      {x_.const_data_ptr(), device_offsets("segment_pool", offsets), out.mutable_data_ptr(),
                       static_cast<int32_t*>(winners.mutable_data_ptr()), segments, columns},
                      device.stream());
  return {out, winners};
}

Tensor backward(const Tensor& grad, const Tensor& offsets, int64_t, const Tensor& winners,
                std::string_view name, int64_t rows) {
  check_segment_pool_backward(grad, offsets, winners, pooling_named(name));
  const PoolRule rule = rule_of(pooling_named(name));
  const Storage storage = storage_of("segment_pool_backward", grad);
  const OnDevice device(grad);
  const Tensor grad_ = ready(grad), winners_ = winners.contiguous();
  Tensor grad_x = at::empty({rows, grad.size(1)}, grad.options());
  if (grad_x.numel() == 0) return grad_x;
  launch_segment_pool_backward(storage, rule,
                               {grad_.const_data_ptr(), device_offsets("segment_pool_backward", offsets),
                                static_cast<const int32_t*>(winners_.const_data_ptr()),
                                grad_x.mutable_data_ptr(), grad.size(0), grad.size(1), rows},
                               device.stream());
  return grad_x;
}

BLT_CUDA_KERNELS(m) {
  m.impl("segment_pool", forward);
  m.impl("segment_pool_backward", backward);
}

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
