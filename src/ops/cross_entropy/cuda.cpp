// cross_entropy on CUDA: tensors to pointers.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "ops/cross_entropy/check.h"
#include "ops/cross_entropy/cuda_kernel.h"
#include "ops/cuda/glue.h"

namespace blt::ops::BLT_DEVICE {
namespace {

using at::Tensor;

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(const Tensor& logits, const Tensor& targets) {
  check_cross_entropy(logits, targets);
  const Storage storage = storage_of("cross_entropy", logits);
  const OnDevice device(logits);
  const int64_t rows = logits.size(0);
  const Tensor logits_ = ready(logits), targets_ = targets.contiguous();
  const auto options = logits.options().dtype(at::kFloat);
  Tensor nll = at::empty({rows}, options), entropy = at::empty({rows}, options),
         softmax = at::empty({rows, 2}, options);
  Tensor argmax = at::empty({rows}, targets.options());
  if (rows == 0) return {nll, entropy, argmax, softmax};
  launch_cross_entropy(storage,
                       {logits_.const_data_ptr(), targets_.const_data_ptr<int32_t>(), nll.data_ptr<float>(),
                        entropy.data_ptr<float>(), argmax.data_ptr<int32_t>(), softmax.data_ptr<float>(),
                        rows, logits.size(1)},
                       device.stream());
  return {nll, entropy, argmax, softmax};
}

Tensor backward(const Tensor& grad, const Tensor& logits, const Tensor& targets, const Tensor& softmax) {
  check_cross_entropy_backward(grad, logits, targets, softmax);
  const int64_t rows = logits.size(0);
  const Storage storage = storage_of("cross_entropy_backward", logits);
  const OnDevice device(logits);
  const Tensor grad_ = grad.contiguous(), logits_ = ready(logits), targets_ = targets.contiguous(),
               softmax_ = softmax.contiguous();
  Tensor grad_logits = at::empty_like(logits_);
  if (rows == 0) return grad_logits;
  launch_cross_entropy_backward(
      storage,
      {grad_.const_data_ptr<float>(), logits_.const_data_ptr(), targets_.const_data_ptr<int32_t>(),
       softmax_.const_data_ptr<float>(), grad_logits.mutable_data_ptr(), rows, logits.size(1)},
      device.stream());
  return grad_logits;
}

BLT_CUDA_KERNELS(m) {
  m.impl("cross_entropy", forward);
  m.impl("cross_entropy_backward", backward);
}

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
