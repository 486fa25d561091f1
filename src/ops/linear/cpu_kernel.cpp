// a^T b, where both lie row by row: nothing has to be turned, since a tile reads a few elements of a row of `a` and some vectors of one of `b`.
#include "ops/linear/cpu_kernel.h"

#include "ops/cpu/gemm_tile.h"
#include "ops/cpu/tail.h"

namespace blt::ops::BLT_ISA {
namespace {

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

template <bool kAccumulate, class T>
void add_depth(const TurnedProduct<T>& x, int64_t k, int64_t depth, const Block& block, T* out, T* scratch) {
  constexpr int64_t kColumns = kPanelColumns<T>;
  // Rows that are far apart fall into few sets of the L1 cache, and push each other out of it.
  constexpr int64_t kFar = 2048 / static_cast<int64_t>(sizeof(T));
  T* const edge = scratch + kTurnedDepth * kColumns;
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
    rows_times_panel<kAccumulate>(block.last_row - block.first_row, x.a + k * x.a_stride + block.first_row, 1,
                                  x.a_stride, b, b_stride, depth, out + block.first_row * x.columns + column,
                                  x.columns, columns, edge);
  }
}

}  // namespace

template <class T>
void turned_product(const TurnedProduct<T>& x, int64_t first, int64_t last, const Block& block, T* out,
                    T* scratch) {
  static_assert((kTurnedDepth + kTileRows) * kPanelColumns<T> <= kTurnedScratch);
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
