// What forward and backward of window_attention share: who sees whom, packing, and products of a block of queries and a block of keys.
// For kernel files alone; see ops/cpu/simd.h.
#pragma once

#include "ops/cpu/gemm_tile.h"
#include "ops/window_attention/cpu_kernel.h"

namespace blt::ops::BLT_ISA {
namespace {

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Positions first to last - 1; none where last <= first.
struct Range {
  int64_t first, last;
  Range within(const Range& other) const { return {most(first, other.first), least(last, other.last)}; }
  bool empty() const { return last <= first; }
  int64_t length() const { return last - first; }
};

// The keys that queries see between them, and the queries that see any of some keys, as positions in the document.
inline Range keys_seen(const Range& queries, int64_t window) {
  return {window > 0 ? most(0, queries.first - window + 1) : 0, queries.last};
}
inline Range queries_seeing(const Range& keys, int64_t window) {
  return {keys.first, window > 0 ? keys.last - 1 + window : INT64_MAX};
}

// Rows of `width` at `from` into rows of `wide`, times `scale`, zeros after.
template <class T>
void pack_rows(const T* from, int64_t stride, int64_t rows, int64_t width, int64_t wide, T scale, T* to) {
  for (int64_t row = 0; row < rows; ++row, from += stride, to += wide) {
    for (int64_t e = 0; e < width; ++e) to[e] = from[e] * scale;
    for (int64_t e = width; e < wide; ++e) to[e] = 0;
  }
}

// Rows of `width` into groups of kGroup rows turned to [width][kGroup], times `scale`; zeros for the rows missing from the last group.
template <int kGroup, class T>
void pack_turned(const T* from, int64_t stride, int64_t rows, int64_t width, T scale, T* to) {
  for (int64_t first = 0; first < rows; first += kGroup, from += kGroup * stride, to += width * kGroup) {
    if (rows - first >= kGroup) {
      for (int64_t e = 0; e < width; ++e)
        for (int64_t row = 0; row < kGroup; ++row) to[e * kGroup + row] = from[row * stride + e] * scale;
    } else {
      for (int64_t e = 0; e < width; ++e)
        for (int64_t row = 0; row < kGroup; ++row)
          to[e * kGroup + row] = row < rows - first ? from[row * stride + e] * scale : 0;
    }
  }
}

// C[kTileRows, wide] += A B for all `wide` columns; A(row, k) by its strides, B [depth, wide].
template <int kRowStride, int kDepthStride, class T>
void add_product(const T* a, const T* b, int64_t depth, T* c, int64_t wide) {
  int64_t column = 0;
  for (; column + kTileVectors * kLanes<T> <= wide; column += kTileVectors * kLanes<T>)
    tile<kTileRows, kTileVectors, kRowStride, kDepthStride, true>(a, b + column, wide, depth, c + column,
                                                                  wide);
  if (column < wide)
    tile<kTileRows, 1, kRowStride, kDepthStride, true>(a, b + column, wide, depth, c + column, wide);
}

// A block of queries of a document: positions in it.
struct QueryBlock {
  Range queries;
  int64_t window;

  explicit QueryBlock(const AttentionDocument& document, int64_t block, int64_t window_)
      : queries{block * kAttentionQueries, least(document.length, (block + 1) * kAttentionQueries)},
        window(window_) {}

  // The queries of `count` rows of the block.
  Range rows(int64_t row, int64_t count) const {
    return Range{queries.first + row, queries.first + row + count}.within(queries);
  }
  // Calls f(keys) for each block of keys that a query sees, as positions: kAttentionKeys of them at most.
  template <class F>
  void each_key_block(const F& f) const {
    const Range seen = keys_seen(queries, window);
    for (int64_t key = seen.first / kAttentionKeys * kAttentionKeys; key < seen.last; key += kAttentionKeys)
      f(Range{key, least(key + kAttentionKeys, seen.last)});
  }
  // Calls f(row, keys) for each group of kRows rows that see any of `keys`, with those that they see between them.
  template <int kRows, class F>
  void each_rows(const Range& keys, const F& f) const {
    for (int64_t row = 0; row < queries.length(); row += kRows) {
      const Range seen = keys_seen(rows(row, kRows), window).within(keys);
      if (!seen.empty()) f(row, seen);
    }
  }
};

// scores[row, key - keys.first] = strips * panels, in whole panels where any of a strip's rows sees a key.
template <class T>
void multiply_strips(const QueryBlock& block, const Range& keys, const T* strips, const T* panels,
                     int64_t width, T* scores) {
  constexpr int64_t kPanel = kPanelColumns<T>;
  for (int64_t first = keys.first; first < keys.last; first += kPanel) {
    const T* panel = panels + first * width;
    block.each_rows<kStripRows>(Range{first, least(first + kPanel, keys.last)}, [&](int64_t strip,
                                                                                    const Range&) {
      for (int64_t v = 0; v < 2; v += kTileVectors)
        for (int64_t row = 0; row < kStripRows; row += kTileRows)
          tile<kTileRows, kTileVectors, 1, kStripRows, false>(
              strips + strip * width + row, panel + v * kLanes<T>, kPanel, width,
              scores + (strip + row) * kAttentionKeys + first - keys.first + v * kLanes<T>, kAttentionKeys);
    });
  }
}

// Calls f(at) for each vector, aligned, that has any of `columns`.
template <class T, class F>
void each_vector(const Range& columns, const F& f) {
  for (int64_t at = columns.first / kLanes<T> * kLanes<T>; at < columns.last; at += kLanes<T>) f(at);
}

// x where first <= at + lane < last, else `rest`.
template <class T>
Vec<T> keep(const Vec<T>& x, int64_t at, const Range& columns, const Vec<T>& rest) {
  if (at >= columns.first && at + kLanes<T> <= columns.last) return x;
  const Vec<T> lane = iota<T>();
  const Vec<T> first = splat(static_cast<T>(columns.first - at)),
               last = splat(static_cast<T>(columns.last - at));
  return select_less(lane, first, rest, select_less(lane, last, x, rest));
}

}  // namespace
}  // namespace blt::ops::BLT_ISA
