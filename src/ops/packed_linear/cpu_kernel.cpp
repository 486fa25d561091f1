// x weight^T from packed panels: each element one sum in the order of `in`, whatever rows surround it.
#include "ops/packed_linear/cpu_kernel.h"

#include "ops/cpu/gemm_tile.h"

namespace blt::ops::BLT_ISA {
namespace {

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Rows [rows][depth] at `from` into strips [kStripRows][depth] turned to [depth][kStripRows]; the last may be short of rows.
template <class T>
void pack_strips(const T* from, int64_t stride, int64_t rows, int64_t depth, T* to) {
  for (int64_t strip = 0; strip < rows; strip += kStripRows, to += depth * kStripRows)
    for (int64_t row = 0; row < least(kStripRows, rows - strip); ++row)
      for (int64_t k = 0; k < depth; ++k) to[k * kStripRows + row] = from[(strip + row) * stride + k];
}

// A tile of `rows` <= kRows rows.
template <int kRows, bool kAccumulate, class T>
void tile_of_rows(int64_t rows, const T* strip, const T* panel, int64_t depth, T* c, int64_t c_stride) {
  if constexpr (kRows > 0) {
    if (rows < kRows) return tile_of_rows<kRows - 1, kAccumulate>(rows, strip, panel, depth, c, c_stride);
    for (int v = 0; v < 2; v += kTileVectors)
      tile<kRows, kTileVectors, 1, kStripRows, kAccumulate>(strip, panel + v * kLanes<T>, kPanelColumns<T>,
                                                            depth, c + v * kLanes<T>, c_stride);
  }
}

template <bool kAccumulate, class T>
void strip_times_panel(int64_t rows, const T* strip, const T* panel, int64_t depth, T* c, int64_t c_stride) {
  for (int64_t row = 0; row < rows; row += kTileRows)
    tile_of_rows<kTileRows, kAccumulate>(least(kTileRows, rows - row), strip + row, panel, depth,
                                         c + row * c_stride, c_stride);
}

// The same where the panel has columns that C has not.
template <bool kAccumulate, class T>
void strip_times_part(int64_t rows, const T* strip, const T* panel, int64_t depth, T* c, int64_t c_stride,
                      int64_t columns, T* edge) {
  constexpr int64_t kColumns = kPanelColumns<T>;
  if (kAccumulate)
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t column = 0; column < columns; ++column)
        edge[row * kColumns + column] = c[row * c_stride + column];
  strip_times_panel<kAccumulate>(rows, strip, panel, depth, edge, kColumns);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = 0; column < columns; ++column)
      c[row * c_stride + column] = edge[row * kColumns + column];
}

template <bool kAccumulate, class T>
void add_depth(const PackedLinear<T>& a, int64_t first_row, int64_t rows, int64_t first_panel,
               int64_t last_panel, int64_t k, int64_t depth, T* scratch) {
  constexpr int64_t kColumns = kPanelColumns<T>;
  T* const edge = scratch + kLinearRows * kLinearDepth;
  for (int64_t p = first_panel; p < last_panel; ++p) {
    const T* panel = a.panels + (p * a.in + k) * kColumns;
    const int64_t columns = least(kColumns, a.columns - p * kColumns);
    for (int64_t row = 0; row < rows; row += kStripRows) {
      const T* strip = scratch + row * depth;
      const int64_t strip_rows = least(kStripRows, rows - row);
      T* c = a.out + (first_row + row) * a.columns + p * kColumns;
      if (columns == kColumns)
        strip_times_panel<kAccumulate>(strip_rows, strip, panel, depth, c, a.columns);
      else
        strip_times_part<kAccumulate>(strip_rows, strip, panel, depth, c, a.columns, columns, edge);
    }
  }
}

// kPanels panels at once: as many independent sums as hide the latency of an fma.
template <int kPanels, class T>
void row_times_panels(const T* x, const T* panels, int64_t in, T* c) {
  constexpr int64_t kColumns = kPanelColumns<T>;
  Vec<T> sums[kPanels][2];
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) sums[p][0] = sums[p][1] = zeros<T>();
  for (int64_t k = 0; k < in; ++k) {
    const Vec<T> factor = splat(x[k]);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const T* at = panels + (p * in + k) * kColumns;
      sums[p][0] = fma(factor, load(at), sums[p][0]);
      sums[p][1] = fma(factor, load(at + kLanes<T>), sums[p][1]);
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    store(c + p * kColumns, sums[p][0]);
    store(c + p * kColumns + kLanes<T>, sums[p][1]);
  }
}

// One row, as generation has it: bound by reading the panels, which pass in a few streams and once. The sums are those of the tiles.
template <class T>
void single_row(const PackedLinear<T>& a, int64_t first_panel, int64_t last_panel, T* scratch) {
  constexpr int64_t kColumns = kPanelColumns<T>;
  constexpr int kTogether = kRegisterBytes / 16;  // 8 registers of sums, whatever their width
  const int64_t whole = least(last_panel, a.columns / kColumns);
  int64_t p = first_panel;
  for (; p + kTogether <= whole; p += kTogether)
    row_times_panels<kTogether>(a.x, a.panels + p * a.in * kColumns, a.in, a.out + p * kColumns);
  for (; p < last_panel; ++p) {
    row_times_panels<1>(a.x, a.panels + p * a.in * kColumns, a.in, scratch);
    for (int64_t column = 0; column < least(kColumns, a.columns - p * kColumns); ++column)
      a.out[p * kColumns + column] = scratch[column];
  }
}

}  // namespace

template <class T>
void packed_linear(const PackedLinear<T>& a, int64_t row_block, int64_t first_panel, int64_t last_panel,
                   T* scratch) {
  static_assert(kPanelColumns<T> == kLinearPanel<T>);
  if (a.rows == 1) return single_row(a, first_panel, last_panel, scratch);
  const int64_t first_row = row_block * kLinearRows;
  const int64_t rows = least(kLinearRows, a.rows - first_row);
  for (int64_t k = 0; k < a.in; k += kLinearDepth) {
    const int64_t depth = least(kLinearDepth, a.in - k);
    pack_strips(a.x + first_row * a.in + k, a.in, rows, depth, scratch);
    if (k == 0)
      add_depth<false>(a, first_row, rows, first_panel, last_panel, k, depth, scratch);
    else
      add_depth<true>(a, first_row, rows, first_panel, last_panel, k, depth, scratch);
  }
}

template void packed_linear(const PackedLinear<float>&, int64_t, int64_t, int64_t, float*);
template void packed_linear(const PackedLinear<double>&, int64_t, int64_t, int64_t, double*);

}  // namespace blt::ops::BLT_ISA
