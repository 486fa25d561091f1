// What the CUDA kernel of rope is launched with.
#pragma once

#include "ops/cuda/storage.h"

namespace blt::ops::BLT_DEVICE {

struct Rope {
  const void* x;             // [rows, heads, width], width even
  const int32_t* positions;  // [rows]
  const float* cos;          // [M, width / 2]
  const float* sin;
  void* out;  // may be x
  int64_t rows, heads, width;
  bool inverse;  // turns by the negative angle
};

// There is at least one element.
void launch_rope(Storage storage, const Rope& a, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
