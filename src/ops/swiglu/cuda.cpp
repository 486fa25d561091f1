// swiglu on CUDA: tensors to pointers.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include "ops/cuda/glue.h"
#include "ops/swiglu/check.h"
#include "ops/swiglu/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

using at::Tensor;

Tensor forward(const Tensor& gate, const Tensor& up) {
  check_swiglu(gate, up);
  const Storage storage = storage_of("swiglu", gate);
  const OnDevice device(gate);
  const Tensor gate_ = ready(gate), up_ = ready(up);
  Tensor out = at::empty_like(gate_);
  if (out.numel() == 0) return out;
  launch_swiglu(storage, {gate_.const_data_ptr(), up_.const_data_ptr(), out.mutable_data_ptr(), out.numel()},
                device.stream());
  return out;
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& gate, const Tensor& up) {
  check_swiglu_backward(grad, gate, up);
  const Storage storage = storage_of("swiglu_backward", gate);
  const OnDevice device(gate);
  const Tensor grad_ = ready(grad), gate_ = ready(gate), up_ = ready(up);
  Tensor grad_gate = at::empty_like(gate_), grad_up = at::empty_like(up_);
  if (gate.numel() == 0) return {grad_gate, grad_up};
  launch_swiglu_backward(storage,
                         {grad_.const_data_ptr(), gate_.const_data_ptr(), up_.const_data_ptr(),
                          grad_gate.mutable_data_ptr(), grad_up.mutable_data_ptr(), gate.numel()},
                         device.stream());
  return {grad_gate, grad_up};
}

BLT_CUDA_KERNELS(m) {
  m.impl("swiglu", forward);
  m.impl("swiglu_backward", backward);
}

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
