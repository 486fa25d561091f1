// A linear layer for inference with a frozen weight: rows are independent of each other, bit for bit.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace blt::ops {

// A weight [out, in] laid out once for packed_linear. Cheap to copy, thread-safe to read. Does not follow
// later changes of the weight that it was made from. On CUDA it is a copy of it, in its dtype; on the CPU panels of columns, float32 for 16-bit
// weights.
struct PackedWeight {
  at::Tensor panels;                  // implementation-defined layout and dtype
  at::ScalarType dtype = at::kFloat;  // of the weight
  int64_t in = 0;
  int64_t out = 0;
};

// weight [out, in] floating. Throws c10::Error on a wrong rank or dtype.
PackedWeight pack_weight(const at::Tensor& weight);
// The same on the CPU, the device that has packed products; none elsewhere, where inference too takes linear (ops/linear.h).
std::optional<PackedWeight> packed_where_used(const at::Tensor& weight);

//   x        [N, in]   floating, the dtype and device of the weight
//   returns  [N, out]  x weight^T
//
// Every element is one sum over `in` in a fixed order, so a row's result depends on that row and the weight
// alone: not on N, not on the row's place, not on the number of threads. A library's matrix product does not
// promise this; entropies that decide where patches start need it (REFERENCE, section 16). Fast where rows are few; on CUDA a library's product of
// many is faster (ops/linear.h). Not differentiable. Throws c10::Error on a wrong rank, width, dtype or device, and when x requires a gradient
// while gradients are on.
at::Tensor packed_linear(const at::Tensor& x, const PackedWeight& weight);

}  // namespace blt::ops
