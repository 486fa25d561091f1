// a^T b, where both lie row by row: nothing has to be turned, since a tile reads a few elements of a row of `a` and some vectors of one of `b`.
// Rows that are far apart fall into few sets of the L1 cache, and push each other out of it: those are laid end to end first.
#include "ops/linear/cpu_kernel.h"

#include "ops/cpu/gemm_tile.h"
#include "ops/cpu/tail.h"

namespace blt::ops::BLT_ISA {
namespace {

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// The left operand as tiles read it: for each kStripRows rows of the result, of which the last strip may have fewer, [depth][kStripRows].
template <class T>
struct Strips {
  const T* first;
  int64_t stride, depth_stride;  // from strip to strip, and from k to k
};

// A strip of one width is a vector or half of one.
template <class T>
Strips<T> pack_strips(const T* a, int64_t a_stride, int64_t depth, int64_t rows, T* strips) {
  for (int64_t k = 0; k < depth; ++k, a += a_stride)
    for (int64_t row = 0; row < rows; row += kStripRows) {
      T* const to = strips + row * depth + k * kStripRows;
      if (rows - row >= kStripRows)
        __builtin_memcpy(to, a + row, kStripRows * sizeof(T));
      else
        for (int64_t i = 0; i < rows - row; ++i) to[i] = a[row + i];
    }
  return {strips, depth * kStripRows, kStripRows};
}

template <bool kAccumulate, class T>
void add_depth(const TurnedProduct<T>& x, int64_t k, int64_t depth, const Block& block, T* out, T* scratch) {
  constexpr int64_t kColumns = kPanelColumns<T>;
  constexpr int64_t kFar = 2048 / static_cast<int64_t>(sizeof(T));
  constexpr int64_t kWorthPacking = 4 * kColumns;  // columns that read the same strips
  T* const edge = scratch + kTurnedDepth * kColumns;
  const int64_t rows = block.last_row - block.first_row;
  Strips<T> strips{x.a + k * x.a_stride + block.first_row, kStripRows, x.a_stride};
  if (block.last_column - block.first_column >= kWorthPacking)
    strips = pack_strips(strips.first, x.a_stride, depth, rows, edge + kTileRows * kColumns);
  for (int64_t column = block.first_column; column < block.last_column; column += kColumns) {
    const int64_t columns = least(kColumns, block.last_column - column);
    const T* b = x.b + k * x.b_stride + column;
    int64_t b_stride = x.b_stride;
    if (columns < kColumns || b_stride >= kFar) {
      for (int64_t i = 0; i < depth; ++i) {
        store(scratch + i * kColumns, load_some(b + i * b_stride, columns));
        store(
            scratch + i * kColumns + kLanes<T>,
            columns > kLanes<T> ? load_some(b + i * b_stride + kLanes<T>, columns - kLanes<T>) : zeros<T>());
      }
      b = scratch;
      b_stride = kColumns;
    }
    for (int64_t row = 0; row < rows; row += kStripRows)
      rows_times_panel<kAccumulate>(least(kStripRows, rows - row),
                                    strips.first + row / kStripRows * strips.stride, 1, strips.depth_stride,
                                    b, b_stride, depth, out + (block.first_row + row) * x.columns + column,
                                    x.columns, columns, edge);
  }
}

}  // namespace

template <class T>
void turned_product(const TurnedProduct<T>& x, int64_t first, int64_t last, const Block& block, T* out,
                    T* scratch) {
  static_assert((kTurnedDepth + kTileRows) * kPanelColumns<T> + kTurnedDepth * kTurnedRows <= kTurnedScratch);
  for (int64_t k = first; k < last; k += kTurnedDepth) {
    const int64_t depth = least(kTurnedDepth, last - k);
    if (k == first)
      add_depth<false>(x, k, depth, block, out, scratch);
    else
      add_depth<true>(x, k, depth, block, out, scratch);
  }
}

template <class T>
void add_parts(const T* parts, int64_t count, int64_t size, int64_t first, int64_t last, T* out) {
  for (int64_t i = first; i < last; i += kLanes<T>) {
    Vec<T> sum = load_some(parts + i, last - i);
    for (int64_t part = 1; part < count; ++part) sum += load_some(parts + part * size + i, last - i);
    store_some(out + i, sum, last - i);
  }
}

template void turned_product(const TurnedProduct<float>&, int64_t, int64_t, const Block&, float*, float*);
template void turned_product(const TurnedProduct<double>&, int64_t, int64_t, const Block&, double*, double*);
template void add_parts(const float*, int64_t, int64_t, int64_t, int64_t, float*);
template void add_parts(const double*, int64_t, int64_t, int64_t, int64_t, double*);

}  // namespace blt::ops::BLT_ISA
