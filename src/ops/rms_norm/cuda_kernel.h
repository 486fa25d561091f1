// What the CUDA kernels of rms_norm are launched with.
#pragma once

#include "ops/cuda/storage.h"

namespace blt::ops::BLT_DEVICE {

struct RmsNorm {
  const void* x;       // [rows, columns]
  const void* added;   // [rows, columns], or nullptr: nothing is added to x
  const void* weight;  // [columns]
  void* sum;           // x + added, rounded, which is then normalised; not used without `added`
  void* out;
  float* inverse;  // [rows]
  int64_t rows, columns;
  float eps;
};

struct RmsNormBackward {
  const void* grad;  // [rows, columns]
  const void* x;
  const void* weight;    // [columns]
  const float* inverse;  // [rows]
  const void* stream;    // [rows, columns], or nullptr: added to grad_x
  void* grad_x;
  float* chunk_sums;  // [norm_chunks(rows), columns] scratch
  void* grad_weight;  // [columns]
  int64_t rows, columns;
};

int64_t norm_chunks(int64_t rows);
// The widest rows that the backward takes.
int64_t most_norm_columns(Storage storage, int64_t columns);

// There is at least one row.
void launch_rms_norm(Storage storage, const RmsNorm& a, Stream stream);
void launch_rms_norm_backward(Storage storage, const RmsNormBackward& b, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
