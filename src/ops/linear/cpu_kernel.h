// What the CPU kernel of a weight's gradient is called with: a product whose left operand lies turned.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

// Of the result in a task. Where that makes too few tasks, they are half as wide.
constexpr int64_t kTurnedRows = 64, kTurnedColumns = 256;
constexpr int64_t kTurnedDepth = 128;  // of the sum at a time: so much stays in the L1 cache
constexpr int64_t kTurnedScratch =
    (kTurnedDepth + 8) * 32 + kTurnedDepth * kTurnedRows;  // elements a thread needs

// out(row, column) = sum over k of a(k, row) b(k, column).
template <class T>
struct TurnedProduct {
  const T* a;  // [depth, rows], rows of memory a_stride apart
  const T* b;  // [depth, columns], b_stride apart
  int64_t rows, columns, a_stride, b_stride;
};

struct Block {
  int64_t first_row, last_row, first_column, last_column;
};

// The sum over k from `first` to `last`, in this order, for a block of the result, whose rows lie x.columns apart from `out` on.
BLT_DECLARE_KERNEL(template <class T> void turned_product(const TurnedProduct<T>& x, int64_t first,
                                                          int64_t last, const Block& block, T* out,
                                                          T* scratch))

// out[i] = parts[0][i] + parts[1][i] + …, one after the other, for i from first to last; parts [count, size].
BLT_DECLARE_KERNEL(template <class T> void add_parts(const T* parts, int64_t count, int64_t size,
                                                     int64_t first, int64_t last, T* out))

}  // namespace blt::ops
