// What the CPU kernels of cross_entropy are called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

template <class T>
struct RowCrossEntropy {
  const T* logits;         // [rows, columns]
  const int32_t* targets;  // [rows]: a column, or negative for none
  T* nll;                  // [rows]
  T* entropy;              // [rows]
  int32_t* argmax;         // [rows]
  T* softmax;              // [rows, 2]: the largest logit, and 1 / sum exp(logit - largest)
  int64_t columns;
};

template <class T>
struct RowCrossEntropyBackward {
  const T* grad;  // [rows], of nll
  const T* logits;
  const int32_t* targets;
  const T* softmax;
  T* grad_logits;
  int64_t columns;
};

BLT_DECLARE_KERNEL(template <class T>
                   void cross_entropy(const RowCrossEntropy<T>& a, int64_t first_row, int64_t last_row))
BLT_DECLARE_KERNEL(template <class T> void cross_entropy_backward(const RowCrossEntropyBackward<T>& b,
                                                                  int64_t first_row, int64_t last_row))

}  // namespace blt::ops
