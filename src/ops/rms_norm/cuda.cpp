// rms_norm on CUDA: tensors to pointers.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include <optional>

#include "ops/cuda/glue.h"
#include "ops/rms_norm/check.h"
#include "ops/rms_norm/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

using at::Tensor;

// The norm of x, or of x + added, which goes into `sum`.
std::tuple<Tensor, Tensor> normed(const Tensor& x, const Tensor* added, const Tensor& weight, double eps,
                                  const Tensor& sum) {
  const Storage storage = storage_of("rms_norm", x);
  const OnDevice device(x);
  const Tensor x_ = ready(x), weight_ = ready(weight);
  Tensor out = at::empty_like(x_), inverse = at::empty({x.size(0)}, x.options().dtype(at::kFloat));
  if (out.numel() == 0) return {out, inverse};
  launch_rms_norm(
      storage,
      {x_.const_data_ptr(), added != nullptr ? added->const_data_ptr() : nullptr, weight_.const_data_ptr(),
       added != nullptr ? sum.mutable_data_ptr() : nullptr, out.mutable_data_ptr(), inverse.data_ptr<float>(),
       x.size(0), x.size(1), static_cast<float>(eps)},
      device.stream());
  return {out, inverse};
}

std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& weight, double eps) {
  check_rms_norm(x, weight);
  return normed(x, nullptr, weight, eps, Tensor());
}

std::tuple<Tensor, Tensor, Tensor> add_forward(const Tensor& x, const Tensor& added, const Tensor& weight,
                                               double eps) {
  check_rms_norm(x, weight);
  check_added(x, added);
  const Tensor added_ = ready(added);
  Tensor sum = at::empty_like(x, at::MemoryFormat::Contiguous);
  auto [out, inverse] = normed(x, &added_, weight, eps, sum);
  return {sum, out, inverse};
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                    const Tensor& inverse, const std::optional<Tensor>& grad_stream) {
  check_rms_norm_backward(grad, x, weight, inverse, grad_stream);
  const Storage storage = storage_of("rms_norm_backward", x);
  TORCH_CHECK(x.size(1) <= most_norm_columns(storage, x.size(1)), "rms_norm_backward: on CUDA, rows of ",
              x.scalar_type(), " have at most ", most_norm_columns(storage, x.size(1)), " columns, got ",
              x.size(1));
  const OnDevice device(x);
  const Tensor grad_ = ready(grad), x_ = ready(x), weight_ = ready(weight), inverse_ = inverse.contiguous(),
               stream_ = grad_stream ? ready(*grad_stream) : Tensor();
  Tensor grad_x = at::empty_like(x_);
  if (x.size(0) == 0) return {grad_x, at::zeros_like(weight_)};
  Tensor grad_weight = at::empty_like(weight_);
  const Tensor chunk_sums = at::empty({norm_chunks(x.size(0)), x.size(1)}, x.options().dtype(at::kFloat));
  launch_rms_norm_backward(
      storage,
      {grad_.const_data_ptr(), x_.const_data_ptr(), weight_.const_data_ptr(),
       inverse_.const_data_ptr<float>(), grad_stream ? stream_.const_data_ptr() : nullptr,
       grad_x.mutable_data_ptr(), chunk_sums.data_ptr<float>(), grad_weight.mutable_data_ptr(), x.size(0),
       x.size(1)},
      device.stream());
  return {grad_x, grad_weight};
}

BLT_CUDA_KERNELS(m) {
  m.impl("rms_norm", forward);
  m.impl("add_rms_norm", add_forward);
  m.impl("rms_norm_backward", backward);
}

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
