// What the CUDA kernels of cross_entropy are launched with.
#pragma once

#include "ops/cuda/storage.h"

namespace blt::ops::BLT_DEVICE {

struct RowCrossEntropy {
  const void* logits;      // [rows, columns]
  const int32_t* targets;  // [rows]; negative: no loss
  float* nll;              // [rows]
  float* entropy;
  int32_t* argmax;
  float* softmax;  // [rows, 2]: the largest logit, 1 / sum exp(logit - largest)
  int64_t rows, columns;
};

struct RowCrossEntropyBackward {
  const float* grad;   // [rows]
  const void* logits;  // [rows, columns]
  const int32_t* targets;
  const float* softmax;  // [rows, 2]
  void* grad_logits;
  int64_t rows, columns;
};

// There is at least one row.
void launch_cross_entropy(Storage storage, const RowCrossEntropy& a, Stream stream);
void launch_cross_entropy_backward(Storage storage, const RowCrossEntropyBackward& b, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
