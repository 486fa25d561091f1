// What the CUDA kernels of packed_linear are launched with.
#pragma once

#include "ops/cuda/storage.h"

namespace blt::ops::BLT_DEVICE {

// Rows of x and of the weight are whole packs of kPackBytes.
struct PackedLinear {
  const void* x;       // [rows, in]
  const void* weight;  // [columns, in]
  void* out;           // [rows, columns]
  int64_t rows, in, columns;
};

// There is at least one of each.
void launch_packed_linear(Storage storage, const PackedLinear& a, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
