// rms_norm on the CPU: tensors to pointers, rows to threads.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <optional>

#include "ops/cpu/kernel_type.h"
#include "ops/rms_norm/check.h"
#include "ops/rms_norm/cpu_kernel.h"

namespace blt::ops {
namespace {

using at::Tensor;

// The norm of x, or of x + added, which goes into `sum`.
std::tuple<Tensor, Tensor> normed(const Tensor& x, const Tensor* added, const Tensor& weight, double eps,
                                  const Tensor& sum) {
  const auto type = kernel_type(x);
  const Tensor x_ = ready(x, type), weight_ = ready(weight, type);
  Tensor out = at::empty_like(x_), inverse = at::empty({x.size(0)}, x_.options());
  with_type(type, [&]<class T>(T) {
    const RmsNorm<T> a{x_.const_data_ptr<T>(),
                       added != nullptr ? added->const_data_ptr<T>() : nullptr,
                       weight_.const_data_ptr<T>(),
                       added != nullptr ? sum.data_ptr<T>() : nullptr,
                       out.data_ptr<T>(),
                       inverse.data_ptr<T>(),
                       x.size(1),
                       static_cast<T>(eps)};
    const auto kernel = BLT_KERNEL(rms_norm<T>);
    at::parallel_for(0, x.size(0), row_grain(a.columns),
                     [&](int64_t first, int64_t last) { kernel(a, first, last); });
  });
  return {out.to(x.scalar_type()), inverse};
}

std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& weight, double eps) {
  check_rms_norm(x, weight);
  return normed(x, nullptr, weight, eps, Tensor());
}

std::tuple<Tensor, Tensor, Tensor> add_forward(const Tensor& x, const Tensor& added, const Tensor& weight,
                                               double eps) {
  check_rms_norm(x, weight);
  check_added(x, added);
  if (kernel_type(x) != x.scalar_type()) {  // 16 bits: what is normalised is the rounded sum
    Tensor sum = (x + added).contiguous();
    auto [out, inverse] = normed(sum, nullptr, weight, eps, Tensor());
    return {sum, out, inverse};
  }
  const Tensor added_ = added.contiguous();
  Tensor sum = at::empty_like(x, at::MemoryFormat::Contiguous);
  auto [out, inverse] = normed(x, &added_, weight, eps, sum);
  return {sum, out, inverse};
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                    const Tensor& inverse, const std::optional<Tensor>& grad_stream) {
  check_rms_norm_backward(grad, x, weight, inverse, grad_stream);
  const auto type = kernel_type(x);
  const Tensor grad_ = ready(grad, type), x_ = ready(x, type), weight_ = ready(weight, type),
               inverse_ = ready(inverse, type), stream_ = grad_stream ? ready(*grad_stream, type) : Tensor();
  const int64_t rows = x.size(0), columns = x.size(1), chunks = (rows + kNormChunk - 1) / kNormChunk;
  Tensor grad_x = at::empty_like(x_), grad_weight = at::empty_like(weight_);
  const Tensor chunk_sums = at::empty({chunks, columns}, x_.options());
  with_type(type, [&]<class T>(T) {
    const RmsNormBackward<T> b{grad_.const_data_ptr<T>(),
                               x_.const_data_ptr<T>(),
                               weight_.const_data_ptr<T>(),
                               inverse_.const_data_ptr<T>(),
                               grad_stream ? stream_.const_data_ptr<T>() : nullptr,
                               grad_x.data_ptr<T>(),
                               chunk_sums.data_ptr<T>(),
                               grad_weight.data_ptr<T>(),
                               rows,
                               columns};
    const auto kernel = BLT_KERNEL(rms_norm_backward<T>);
    at::parallel_for(0, chunks, 1 + row_grain(columns) / kNormChunk,
                     [&](int64_t first, int64_t last) { kernel(b, first, last); });
    const auto reduce = BLT_KERNEL(rms_norm_grad_weight<T>);
    at::parallel_for(0, columns, row_grain(chunks),
                     [&](int64_t first, int64_t last) { reduce(b, first, last); });
  });
  return {grad_x.to(x.scalar_type()), grad_weight.to(weight.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(blt, CPU, m) {
  m.impl("rms_norm", forward);
  m.impl("add_rms_norm", add_forward);
  m.impl("rms_norm_backward", backward);
}

}  // namespace blt::ops
