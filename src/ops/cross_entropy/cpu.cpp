// cross_entropy on the CPU: tensors to pointers, rows to threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "blt/batch.h"
#include "ops/cpu/kernel_type.h"
#include "ops/cross_entropy/check.h"
#include "ops/cross_entropy/cpu_kernel.h"

namespace blt::ops {
namespace {

using at::Tensor;

// Contiguous, and each an id or kIgnore: the kernels follow them.
Tensor checked_targets(const Tensor& targets, int64_t columns) {
  const Tensor result = targets.contiguous();
  const int32_t* target = result.const_data_ptr<int32_t>();
  for (int64_t t = 0; t < result.numel(); ++t)
    TORCH_CHECK((target[t] >= 0 && target[t] < columns) || target[t] == kIgnore, "cross_entropy: target ",
                target[t], " of row ", t, " is not in the vocabulary of ", columns);
  return result;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(const Tensor& logits, const Tensor& targets) {
  check_cross_entropy(logits, targets);
  const auto type = kernel_type(logits);
  const int64_t rows = logits.size(0), columns = logits.size(1);
  const Tensor logits_ = ready(logits, type), targets_ = checked_targets(targets, columns);
  Tensor nll = at::empty({rows}, logits_.options()), entropy = at::empty_like(nll);
  Tensor argmax = at::empty({rows}, targets_.options());
  Tensor softmax = at::empty({rows, 2}, logits_.options());
  with_type(type, [&]<class T>(T) {
    const RowCrossEntropy<T> a{logits_.const_data_ptr<T>(),
                               targets_.const_data_ptr<int32_t>(),
                               nll.data_ptr<T>(),
                               entropy.data_ptr<T>(),
                               argmax.data_ptr<int32_t>(),
                               softmax.data_ptr<T>(),
                               columns};
    const auto kernel = BLT_KERNEL(cross_entropy<T>);
    at::parallel_for(0, rows, row_grain(columns),
                     [&](int64_t first, int64_t last) { kernel(a, first, last); });
  });
  return {nll, entropy, argmax, softmax};
}

Tensor backward(const Tensor& grad, const Tensor& logits, const Tensor& targets, const Tensor& softmax) {
  check_cross_entropy_backward(grad, logits, targets, softmax);
  const auto type = kernel_type(logits);
  const int64_t rows = logits.size(0), columns = logits.size(1);
  const Tensor grad_ = ready(grad, type), logits_ = ready(logits, type), softmax_ = ready(softmax, type),
               targets_ = checked_targets(targets, columns);
  Tensor grad_logits = at::empty_like(logits_);
  with_type(type, [&]<class T>(T) {
    const RowCrossEntropyBackward<T> b{grad_.const_data_ptr<T>(),          logits_.const_data_ptr<T>(),
                                       targets_.const_data_ptr<int32_t>(), softmax_.const_data_ptr<T>(),
                                       grad_logits.data_ptr<T>(),          columns};
    const auto kernel = BLT_KERNEL(cross_entropy_backward<T>);
    at::parallel_for(0, rows, row_grain(columns),
                     [&](int64_t first, int64_t last) { kernel(b, first, last); });
  });
  return grad_logits.to(logits.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(blt, CPU, m) {
  m.impl("cross_entropy", forward);
  m.impl("cross_entropy_backward", backward);
}

}  // namespace blt::ops
