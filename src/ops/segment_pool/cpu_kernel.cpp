// Pooling down the rows of a segment, a vector of columns at a time.
#include "ops/segment_pool/cpu_kernel.h"

#include "ops/cpu/simd.h"

namespace blt::ops::BLT_ISA {
namespace {

// A unit's rows and columns.
struct Block {
  int64_t segment, first_row, last_row, first_column, last_column;
};

template <class F>
void each_block(const int32_t* offsets, int64_t columns, int64_t first_unit, int64_t last_unit, const F& f) {
  const int64_t parts = (columns + kPoolColumns - 1) / kPoolColumns;
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t segment = unit / parts, first_column = unit % parts * kPoolColumns;
    const int64_t end = first_column + kPoolColumns;
    f(Block{segment, offsets[segment], offsets[segment + 1], first_column, end < columns ? end : columns});
  }
}

// x or, so that one comparison finds minima too, -x.
template <bool kMin, class T>
Vec<T> oriented(const Vec<T>& x) {
  return kMin ? -x : x;
}

// Which row is best so far in each lane: integers as wide as T.
template <class T>
struct Rows {
  typename Register<T>::Bits r[kRegisters];
};

// `count` (up to kLanes) columns.
template <bool kMin, class T>
void extreme_columns(const T* x, int64_t columns, int64_t first_row, int64_t last_row, int64_t count, T* out,
                     int32_t* winners) {
  using Bits = typename Register<T>::Bits;
  const auto row_at = [=](int64_t row) {
    const T* from = x + row * columns;
    return oriented<kMin>(count == kLanes<T> ? load(from) : load(from, count));
  };
  Vec<T> best = row_at(first_row);
  Rows<T> winner;
  BLT_EACH_REGISTER(i) winner.r[i] = Bits{} + static_cast<decltype(Bits{}[0] + 0)>(first_row);
  for (int64_t row = first_row + 1; row < last_row; ++row) {
    const Vec<T> value = row_at(row);
    const Bits here = Bits{} + static_cast<decltype(Bits{}[0] + 0)>(row);
    BLT_EACH_REGISTER(i) {
      // Larger, or the first NaN.
      const Bits better = (value.r[i] > best.r[i]) | ((value.r[i] != value.r[i]) & (best.r[i] == best.r[i]));
      best.r[i] = better ? value.r[i] : best.r[i];
      winner.r[i] = better ? here : winner.r[i];
    }
  }
  best = oriented<kMin>(best);
  if (count == kLanes<T>)
    store(out, best);
  else
    store(out, best, count);
  for (int64_t lane = 0; lane < count; ++lane)
    winners[lane] = static_cast<int32_t>(winner.r[lane / Vec<T>::kPerRegister][lane % Vec<T>::kPerRegister]);
}

template <bool kMin, class T>
void extreme(const SegmentPool<T>& a, int64_t first_unit, int64_t last_unit) {
  each_block(a.offsets, a.columns, first_unit, last_unit, [&](const Block& b) {
    for (int64_t c = b.first_column; c < b.last_column; c += kLanes<T>) {
      const int64_t left = b.last_column - c;
      const int64_t at = b.segment * a.columns + c;
      extreme_columns<kMin>(a.x + c, a.columns, b.first_row, b.last_row, left < kLanes<T> ? left : kLanes<T>,
                            a.out + at, a.winners + at);
    }
  });
}

}  // namespace

template <class T>
void segment_max(const SegmentPool<T>& a, int64_t first_unit, int64_t last_unit) {
  extreme<false>(a, first_unit, last_unit);
}

template <class T>
void segment_min(const SegmentPool<T>& a, int64_t first_unit, int64_t last_unit) {
  extreme<true>(a, first_unit, last_unit);
}

template <class T>
void segment_mean(const SegmentPool<T>& a, int64_t first_unit, int64_t last_unit) {
  each_block(a.offsets, a.columns, first_unit, last_unit, [&](const Block& b) {
    const T rows = static_cast<T>(b.last_row - b.first_row);
    T* out = a.out + b.segment * a.columns;
    for (int64_t c = b.first_column; c < b.last_column; ++c) out[c] = a.x[b.first_row * a.columns + c];
    for (int64_t row = b.first_row + 1; row < b.last_row; ++row)
      for (int64_t c = b.first_column; c < b.last_column; ++c) out[c] += a.x[row * a.columns + c];
    for (int64_t c = b.first_column; c < b.last_column; ++c) out[c] /= rows;
  });
}

template <class T>
void segment_winner_backward(const SegmentPoolBackward<T>& b, int64_t first_unit, int64_t last_unit) {
  each_block(b.offsets, b.columns, first_unit, last_unit, [&](const Block& block) {
    const T* __restrict grad = b.grad + block.segment * b.columns;
    const int32_t* __restrict winners = b.winners + block.segment * b.columns;
    for (int64_t row = block.first_row; row < block.last_row; ++row) {
      T* __restrict grad_x = b.grad_x + row * b.columns;
      const int32_t here = static_cast<int32_t>(row);
      for (int64_t c = block.first_column; c < block.last_column; ++c)
        grad_x[c] = winners[c] == here ? grad[c] : 0;
    }
  });
}

template <class T>
void segment_mean_backward(const SegmentPoolBackward<T>& b, int64_t first_unit, int64_t last_unit) {
  each_block(b.offsets, b.columns, first_unit, last_unit, [&](const Block& block) {
    const T* __restrict grad = b.grad + block.segment * b.columns;
    const T rows = static_cast<T>(block.last_row - block.first_row);
    for (int64_t row = block.first_row; row < block.last_row; ++row) {
      T* __restrict grad_x = b.grad_x + row * b.columns;
      for (int64_t c = block.first_column; c < block.last_column; ++c) grad_x[c] = grad[c] / rows;
    }
  });
}

#define BLT_POOL_KERNELS(T)                                                               \
  template void segment_max(const SegmentPool<T>&, int64_t, int64_t);                     \
  template void segment_min(const SegmentPool<T>&, int64_t, int64_t);                     \
  template void segment_mean(const SegmentPool<T>&, int64_t, int64_t);                    \
  template void segment_winner_backward(const SegmentPoolBackward<T>&, int64_t, int64_t); \
  template void segment_mean_backward(const SegmentPoolBackward<T>&, int64_t, int64_t);
BLT_POOL_KERNELS(float)
BLT_POOL_KERNELS(double)
#undef BLT_POOL_KERNELS

}  // namespace blt::ops::BLT_ISA
