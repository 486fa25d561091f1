// swiglu on the CPU: tensors to pointers, elements to threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "ops/cpu/kernel_type.h"
#include "ops/swiglu/check.h"
#include "ops/swiglu/cpu_kernel.h"

namespace blt::ops {
namespace {

using at::Tensor;

constexpr int64_t kGrain = 16384;  // elements

Tensor forward(const Tensor& gate, const Tensor& up) {
  check_swiglu(gate, up);
  const auto type = kernel_type(gate);
  const Tensor gate_ = ready(gate, type), up_ = ready(up, type);
  Tensor out = at::empty_like(gate_);
  with_type(type, [&]<class T>(T) {
    const Swiglu<T> a{gate_.const_data_ptr<T>(), up_.const_data_ptr<T>(), out.data_ptr<T>()};
    const auto kernel = BLT_KERNEL(swiglu<T>);
    at::parallel_for(0, out.numel(), kGrain, [&](int64_t first, int64_t last) { kernel(a, first, last); });
  });
  return out.to(gate.scalar_type());
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& gate, const Tensor& up) {
  check_swiglu_backward(grad, gate, up);
  const auto type = kernel_type(gate);
  const Tensor grad_ = ready(grad, type), gate_ = ready(gate, type), up_ = ready(up, type);
  Tensor grad_gate = at::empty_like(gate_), grad_up = at::empty_like(up_);
  with_type(type, [&]<class T>(T) {
    const SwigluBackward<T> b{grad_.const_data_ptr<T>(), gate_.const_data_ptr<T>(), up_.const_data_ptr<T>(),
                              grad_gate.data_ptr<T>(), grad_up.data_ptr<T>()};
    const auto kernel = BLT_KERNEL(swiglu_backward<T>);
    at::parallel_for(0, gate_.numel(), kGrain, [&](int64_t first, int64_t last) { kernel(b, first, last); });
  });
  return {grad_gate.to(gate.scalar_type()), grad_up.to(up.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(blt, CPU, m) {
  m.impl("swiglu", forward);
  m.impl("swiglu_backward", backward);
}

}  // namespace blt::ops
