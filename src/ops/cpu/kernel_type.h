// Which element type a CPU kernel runs in.
#pragma once

#include <ATen/core/Tensor.h>

#include <type_traits>

namespace blt::ops {

// float and double have kernels; the 16-bit types go through float.
inline at::ScalarType kernel_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// `x` as a kernel reads it: in `type` and contiguous; x itself where it is.
inline at::Tensor ready(const at::Tensor& x, at::ScalarType type) { return x.to(type).contiguous(); }

// run(T()) with T float or double.
template <class Run>
void with_type(at::ScalarType type, const Run& run) {
  if (type == at::kDouble)  // NOLINT(bugprone-branch-clone): the types differ
    run(double());
  else
    run(float());
}

// Rows of `columns` elements that are worth handing to a thread.
inline int64_t row_grain(int64_t columns) { return 1 + 16384 / (columns + 1); }

}  // namespace blt::ops
