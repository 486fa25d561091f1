// What the CPU kernels of packed_linear are called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

// A weight [out, in] lies in panels of this many rows (two vectors), each [in][columns] so that a product reads it in one stream. Rows
// that fill the last panel up are zero.
template <class T>
constexpr int64_t kLinearPanel = 128 / static_cast<int64_t>(sizeof(T));

constexpr int64_t kLinearRows = 128;   // rows of x in a task
constexpr int64_t kLinearDepth = 128;  // of `in` at a time: so much of a panel stays in the L1 cache
constexpr int64_t kLinearScratch = kLinearRows * kLinearDepth + 8 * 32;  // elements a thread needs

template <class T>
struct PackedLinear {
  const T* x;       // [rows, in]
  const T* panels;  // [ceil(columns / kLinearPanel), in, kLinearPanel]
  T* out;           // [rows, columns]
  int64_t rows, in, columns;
};

// The rows of block `row_block` (of kLinearRows) times the panels from first_panel to last_panel.
BLT_DECLARE_KERNEL(template <class T> void packed_linear(const PackedLinear<T>& a, int64_t row_block,
                                                         int64_t first_panel, int64_t last_panel, T* scratch))

}  // namespace blt::ops
