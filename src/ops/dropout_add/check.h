// What dropout_add must be given, wherever it is entered.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace blt::ops {

// Of 2^32 equally likely numbers, how many are smaller than the first that is not dropped. Below 2^32 unless the probability is 1.
uint64_t dropout_threshold(double probability);

void check_dropout_add(const at::Tensor& x, const std::optional<at::Tensor>& residual, double probability);

}  // namespace blt::ops
