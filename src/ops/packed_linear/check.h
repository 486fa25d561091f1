// What packed_linear's arguments must be, wherever it is entered, and the shape of a weight that is packed on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

void check_weight(const at::Tensor& weight);
void check_product(const at::Tensor& x, const at::Tensor& panels);

// On the CPU, and in shapes alone.
void check_panels(const at::Tensor& x, const at::Tensor& panels, int64_t out);
// Panels of a 16-bit weight are float.
inline at::ScalarType panel_dtype(at::ScalarType weight) {
  return weight == at::kDouble ? weight : at::kFloat;
}
// Output columns in a panel [in, columns].
inline int64_t panel_columns(at::ScalarType weight) { return weight == at::kDouble ? 16 : 32; }

}  // namespace blt::ops
