// What arguments must be, wherever rms_norm and its backward are entered.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace blt::ops {

void check_rms_norm(const at::Tensor& x, const at::Tensor& weight);
void check_added(const at::Tensor& x, const at::Tensor& added);
void check_rms_norm_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& inverse, const std::optional<at::Tensor>& grad_stream);

}  // namespace blt::ops
