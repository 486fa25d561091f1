// Which keys a block of threads has: arithmetic on positions that kernels and their tests on the host share.
#pragma once

#include "ops/cuda/partition.h"

namespace blt::ops::BLT_DEVICE {

// Keys of a query are cut at the multiples of kSpan among the positions of its sequence, so that they are cut alike whatever it is computed
// with. A cache's capacity is a multiple of kSpan: a span lies in one piece in the ring.
constexpr int64_t kSpan = 128;

// The keys that the query at `position` sees are those from here to itself. window: keys that it sees at most; 0: all.
BLT_HOST_DEVICE constexpr int64_t first_seen(int64_t position, int64_t window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

// Spans that the query at `position` sees any key of; at least one.
BLT_HOST_DEVICE constexpr int64_t count_spans(int64_t position, int64_t window) {
  return position / kSpan - first_seen(position, window) / kSpan + 1;
}

// Keys first to last - 1 of a sequence. Key p is row p - first + slot of its cache.
struct Span {
  int64_t first, last, slot;
};

// Number `number` of them.
BLT_HOST_DEVICE constexpr Span span_of(int64_t position, int64_t window, int64_t capacity, int64_t number) {
  const int64_t begin = (first_seen(position, window) / kSpan + number) * kSpan;
  const int64_t first = number == 0 ? first_seen(position, window) : begin;
  return {first, smaller(position + 1, begin + kSpan), first % capacity};
}

}  // namespace blt::ops::BLT_DEVICE
