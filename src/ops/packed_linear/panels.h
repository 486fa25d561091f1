// Products on the CPU with a right operand in panels: what packed_linear and linear are made of.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

// b [depth, columns] float or double, any strides -> [ceil(columns / panel), depth, panel] (cpu_kernel.h).
at::Tensor make_panels(const at::Tensor& b);

// x [N, depth] with elements of a row side by side -> [N, columns]. Every element is one sum over depth in its order.
at::Tensor times_panels(const at::Tensor& x, const at::Tensor& panels, int64_t columns);

}  // namespace blt::ops
