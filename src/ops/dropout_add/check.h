// What dropout_add must be given, wherever it is entered.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace blt::ops {

void check_dropout_add(const at::Tensor& x, const std::optional<at::Tensor>& residual, double probability);

}  // namespace blt::ops
