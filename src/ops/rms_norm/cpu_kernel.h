// What the CPU kernels of rms_norm are called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

template <class T>
struct RmsNorm {
  const T* x;       // [N, columns]
  const T* added;   // [N, columns], or nullptr: nothing is added to x
  const T* weight;  // [columns]
  T* sum;           // [N, columns]: x + added, which is then normalised; not used without `added`
  T* out;           // [N, columns]
  T* inverse;       // [N]: 1 / sqrt(mean(x^2) + eps)
  int64_t columns;
  T eps;
};

// The gradient of the weight is a sum over all rows. It is taken over chunks of kNormChunk rows, whoever runs
// them, and then over the chunks in order: the number of threads does not change it.
constexpr int64_t kNormChunk = 64;

template <class T>
struct RmsNormBackward {
  const T* grad;     // [N, columns]
  const T* x;        // [N, columns]
  const T* weight;   // [columns]
  const T* inverse;  // [N]
  const T* stream;   // [N, columns], or nullptr: added to grad_x
  T* grad_x;         // [N, columns]
  T* chunk_sums;     // [ceil(N / kNormChunk), columns]
  T* grad_weight;    // [columns]
  int64_t rows;
  int64_t columns;
};

BLT_DECLARE_KERNEL(template <class T> void rms_norm(const RmsNorm<T>& a, int64_t first_row, int64_t last_row))
// grad_x of the rows of some chunks, and chunk_sums.
BLT_DECLARE_KERNEL(template <class T> void rms_norm_backward(const RmsNormBackward<T>& b, int64_t first_chunk,
                                                             int64_t last_chunk))
// grad_weight of some columns from chunk_sums.
BLT_DECLARE_KERNEL(template <class T> void rms_norm_grad_weight(const RmsNormBackward<T>& b,
                                                                int64_t first_column, int64_t last_column))

}  // namespace blt::ops
