// What arguments must be, wherever segment_pool and its backward are entered.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "blt/ops/segment_pool.h"

namespace blt::ops {

void check_segment_pool(const at::Tensor& x, const at::Tensor& offsets);
void check_segment_pool_backward(const at::Tensor& grad, const at::Tensor& offsets, const at::Tensor& winners,
                                 Pooling pooling);

// The schema's "max", "mean", "min".
Pooling pooling_named(std::string_view name);
std::string_view name_of(Pooling pooling);

}  // namespace blt::ops
