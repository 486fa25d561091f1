// What segment_pool's arguments must be, wherever it is entered.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "blt/ops/segment_pool.h"

namespace blt::ops {

void check_segment_pool(const at::Tensor& x);

// The schema's "max", "mean", "min".
Pooling pooling_named(std::string_view name);
std::string_view name_of(Pooling pooling);

}  // namespace blt::ops
