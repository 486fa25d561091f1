// x weight^T from packed panels: each element one sum in the order of `in`, whatever rows surround it.
#include "ops/packed_linear/cpu_kernel.h"

#include "ops/cpu/gemm_tile.h"

namespace blt::ops::BLT_ISA {
namespace {

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

#ifdef __AVX512F__
using Floats = Register<float>::Values;

// Of two rows, in alternation: groups of `size` elements, the even ones or the odd ones of each.
template <int size, bool odd>
Floats alternate(const Floats& x, const Floats& y) {
  return shuffled<float>(x, y,
                         [](int i) { return (i / size % 2 == 0 ? i : 16 + i - size) + (odd ? size : 0); });
}

// Blocks of size x size within blocks of twice the size change places across the diagonal.
template <int size>
void exchange(Floats* rows) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    if (i / size % 2 != 0) continue;
    const Floats above = rows[i], below = rows[i + size];
    rows[i] = alternate<size, false>(above, below);
    rows[i + size] = alternate<size, true>(above, below);
  }
}

// 16 rows of 16 floats turned.
void turn_block(const float* from, int64_t stride, float* to, int64_t to_stride) {
  Floats rows[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) rows[i] = load(from + i * stride).r[0];
  exchange<8>(rows);
  exchange<4>(rows);
  exchange<2>(rows);
  exchange<1>(rows);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) store(to + i * to_stride, Vec<float>{{rows[i]}});
}
#endif

// kLanes rows of kLanes elements turned.
template <class T>
void turn_block(const T* from, int64_t stride, T* to, int64_t to_stride) {
  for (int row = 0; row < kLanes<T>; ++row)
    for (int k = 0; k < kLanes<T>; ++k) to[k * to_stride + row] = from[row * stride + k];
}

// `columns` of a panel whose columns lie end to end.
template <class T>
void turn_into_panel(const T* from, int64_t column_stride, int64_t depth, int64_t columns, T* panel) {
  constexpr int64_t kColumns = kPanelColumns<T>;
  for (int64_t column = 0; column < columns;) {
    const bool is_block = columns - column >= kLanes<T>;
    int64_t k = 0;
    if (is_block)
      for (; k + kLanes<T> <= depth; k += kLanes<T>)
        turn_block(from + column * column_stride + k, column_stride, panel + k * kColumns + column, kColumns);
    const int64_t last = column + (is_block ? kLanes<T> : 1);
    for (const int64_t rest = k; column < last; ++column)
      for (k = rest; k < depth; ++k) panel[k * kColumns + column] = from[column * column_stride + k];
  }
}

template <bool kAccumulate, class T>
void add_depth(const PackedLinear<T>& a, int64_t first_row, int64_t rows, int64_t first_panel,
               int64_t last_panel, int64_t k, int64_t depth, T* edge) {
  constexpr int64_t kColumns = kPanelColumns<T>;
  for (int64_t p = first_panel; p < last_panel; ++p)
    rows_times_panel<kAccumulate>(rows, a.x + first_row * a.x_stride + k, a.x_stride, 1,
                                  a.panels + (p * a.in + k) * kColumns, kColumns, depth,
                                  a.out + first_row * a.columns + p * kColumns, a.columns,
                                  least(kColumns, a.columns - p * kColumns), edge);
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
void pack_panels(const PanelSource<T>& source, int64_t first_panel, int64_t last_panel) {
  constexpr int64_t kColumns = kPanelColumns<T>;
  for (int64_t p = first_panel; p < last_panel; ++p) {
    const T* from = source.from + p * kColumns * source.column_stride;
    T* const panel = source.panels + p * source.depth * kColumns;
    const int64_t columns = least(kColumns, source.columns - p * kColumns);
    if (columns < kColumns)
      for (int64_t i = 0; i < source.depth * kColumns; ++i) panel[i] = 0;
    if (source.depth_stride == 1) {
      turn_into_panel(from, source.column_stride, source.depth, columns, panel);
    } else if (source.column_stride == 1 && columns == kColumns) {
      for (int64_t k = 0; k < source.depth; ++k, from += source.depth_stride) {
        store(panel + k * kColumns, load(from));
        store(panel + k * kColumns + kLanes<T>, load(from + kLanes<T>));
      }
    } else {
      for (int64_t k = 0; k < source.depth; ++k)
        for (int64_t column = 0; column < columns; ++column)
          panel[k * kColumns + column] = from[k * source.depth_stride + column * source.column_stride];
    }
  }
}

template <class T>
void packed_linear(const PackedLinear<T>& a, int64_t row_block, int64_t first_panel, int64_t last_panel,
                   T* scratch) {
  static_assert(kPanelColumns<T> == kLinearPanel<T>);
  static_assert(kTileRows * kPanelColumns<T> <= kLinearScratch);
  if (a.rows == 1) return single_row(a, first_panel, last_panel, scratch);
  const int64_t first_row = row_block * kLinearRows;
  const int64_t rows = least(kLinearRows, a.rows - first_row);
  for (int64_t k = 0; k < a.in; k += kLinearDepth) {
    const int64_t depth = least(kLinearDepth, a.in - k);
    if (k == 0)
      add_depth<false>(a, first_row, rows, first_panel, last_panel, k, depth, scratch);
    else
      add_depth<true>(a, first_row, rows, first_panel, last_panel, k, depth, scratch);
  }
}

template void pack_panels(const PanelSource<float>&, int64_t, int64_t);
template void pack_panels(const PanelSource<double>&, int64_t, int64_t);
template void packed_linear(const PackedLinear<float>&, int64_t, int64_t, int64_t, float*);
template void packed_linear(const PackedLinear<double>&, int64_t, int64_t, int64_t, double*);

}  // namespace blt::ops::BLT_ISA
