// What the CPU kernels of packed_linear, and of linear, are called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

// The right operand B [depth, columns] of a product lies in panels of this many columns (two vectors), each [depth][columns], so that a
// product reads it in one stream. Columns that fill the last panel up are zero.
template <class T>
constexpr int64_t kLinearPanel = 128 / static_cast<int64_t>(sizeof(T));

constexpr int64_t kLinearRows = 128;        // rows of x in a task
constexpr int64_t kLinearDepth = 256;       // of `in` at a time: so much of a panel stays in the L1 cache
constexpr int64_t kLinearScratch = 8 * 32;  // elements a thread needs

// B(k, column) is from[k * depth_stride + column * column_stride]; one of the strides is 1, or both are anything and it takes longer.
template <class T>
struct PanelSource {
  const T* from;
  T* panels;  // [ceil(columns / kLinearPanel), depth, kLinearPanel]
  int64_t depth, columns, depth_stride, column_stride;
};

BLT_DECLARE_KERNEL(template <class T>
                   void pack_panels(const PanelSource<T>& source, int64_t first_panel, int64_t last_panel))

template <class T>
struct PackedLinear {
  const T* x;       // [rows, in], rows x_stride apart
  const T* panels;  // [ceil(columns / kLinearPanel), in, kLinearPanel]
  T* out;           // [rows, columns]
  int64_t rows, in, columns, x_stride;
};

// The rows of block `row_block` (of kLinearRows) times the panels from first_panel to last_panel.
BLT_DECLARE_KERNEL(template <class T> void packed_linear(const PackedLinear<T>& a, int64_t row_block,
                                                         int64_t first_panel, int64_t last_panel, T* scratch))

}  // namespace blt::ops
