// What x, weight and what goes with them must be, wherever rms_norm is entered.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace blt::ops {

void check_rms_norm(const at::Tensor& x, const at::Tensor& weight);
void check_added(const at::Tensor& x, const at::Tensor& added);
void check_grad_stream(const at::Tensor& x, const std::optional<at::Tensor>& grad_stream);

}  // namespace blt::ops
