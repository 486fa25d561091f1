// The inner loop of every matrix product on the CPU: a tile of C in registers.
//
// For kernel files alone; see simd.h. Callers pack their operands so that no tile is cut: rows and columns are those of the tile.
#pragma once

#include "ops/cpu/simd.h"

namespace blt::ops::BLT_ISA {

// How many rows, and how many vectors of columns, fit into the registers with enough independent sums to hide the latency of an fma:
// 8 x 2 of 32 registers with AVX-512 (one register a vector), 4 x 1 and 2 x 1 of 16 registers below.
#if defined(__AVX512F__)
constexpr int kTileRows = 8;
constexpr int kTileVectors = 2;
#elif defined(__AVX__)
constexpr int kTileRows = 4;
constexpr int kTileVectors = 1;
#else
constexpr int kTileRows = 2;
constexpr int kTileVectors = 1;
#endif

// Packed operands are laid out alike on every instruction set: panels of two vectors of columns, strips of eight rows.
constexpr int kStripRows = 8;
template <class T>
constexpr int kPanelColumns = 2 * kLanes<T>;

// C[rows, vectors] = (kAccumulate ? C : 0) + sum over k < depth of A(row, k) * B[k, vectors], k one after the other: the rounding of
// an element depends on its row of A and its column of B alone. A(row, k) is a[row * row_stride + k * depth_stride].
template <int kRows, int kVectors, bool kAccumulate, class T>
[[gnu::always_inline]] inline void tile(const T* a, int64_t row_stride, int64_t depth_stride, const T* b,
                                        int64_t b_stride, int64_t depth, T* c, int64_t c_stride) {
  Vec<T> sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v)
      sums[row][v] = kAccumulate ? load(c + row * c_stride + v * kLanes<T>) : zeros<T>();
  for (int64_t k = 0; k < depth; ++k) {
    Vec<T> columns[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) columns[v] = load(b + v * kLanes<T>);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      const Vec<T> factor = splat(a[row * row_stride]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[row][v] = fma(factor, columns[v], sums[row][v]);
    }
    a += depth_stride;
    b += b_stride;
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) store(c + row * c_stride + v * kLanes<T>, sums[row][v]);
}

// The same for strides that are known when it is compiled.
template <int kRows, int kVectors, int kRowStride, int kDepthStride, bool kAccumulate, class T>
inline void tile(const T* a, const T* b, int64_t b_stride, int64_t depth, T* c, int64_t c_stride) {
  tile<kRows, kVectors, kAccumulate>(a, kRowStride, kDepthStride, b, b_stride, depth, c, c_stride);
}

// A tile of `rows` <= kRows rows, two vectors wide.
template <int kRows, bool kAccumulate, class T>
void tile_of_rows(int64_t rows, const T* a, int64_t row_stride, int64_t depth_stride, const T* b,
                  int64_t b_stride, int64_t depth, T* c, int64_t c_stride) {
  if constexpr (kRows > 0) {
    if (rows < kRows)
      return tile_of_rows<kRows - 1, kAccumulate>(rows, a, row_stride, depth_stride, b, b_stride, depth, c,
                                                  c_stride);
    for (int v = 0; v < 2; v += kTileVectors)
      tile<kRows, kTileVectors, kAccumulate>(a, row_stride, depth_stride, b + v * kLanes<T>, b_stride, depth,
                                             c + v * kLanes<T>, c_stride);
  }
}

// C[rows, columns] = (kAccumulate ? C : 0) + A B, as many rows as there are, columns <= kPanelColumns; where they are fewer, B has them
// all nevertheless, and a tile is made in `edge` [kTileRows * kPanelColumns], since C has not.
template <bool kAccumulate, class T>
void rows_times_panel(int64_t rows, const T* a, int64_t row_stride, int64_t depth_stride, const T* b,
                      int64_t b_stride, int64_t depth, T* c, int64_t c_stride, int64_t columns, T* edge) {
  for (int64_t row = 0; row < rows;
       row += kTileRows, a += kTileRows * row_stride, c += kTileRows * c_stride) {
    const int64_t tile_rows = rows - row < kTileRows ? rows - row : kTileRows;
    if (columns == kPanelColumns<T>) {
      tile_of_rows<kTileRows, kAccumulate>(tile_rows, a, row_stride, depth_stride, b, b_stride, depth, c,
                                           c_stride);
      continue;
    }
    if (kAccumulate)
      for (int64_t r = 0; r < tile_rows; ++r)
        for (int64_t column = 0; column < columns; ++column)
          edge[r * kPanelColumns<T> + column] = c[r * c_stride + column];
    tile_of_rows<kTileRows, kAccumulate>(tile_rows, a, row_stride, depth_stride, b, b_stride, depth, edge,
                                         kPanelColumns<T>);
    for (int64_t r = 0; r < tile_rows; ++r)
      for (int64_t column = 0; column < columns; ++column)
        c[r * c_stride + column] = edge[r * kPanelColumns<T> + column];
  }
}

}  // namespace blt::ops::BLT_ISA
