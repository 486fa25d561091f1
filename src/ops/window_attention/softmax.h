// The running softmax of window_attention's forward, which cached_attention has in common with it to the last bit.
// For kernel files alone; see ops/cpu/simd.h.
#pragma once

#include "ops/window_attention/tiles.h"

namespace blt::ops::BLT_ISA {
namespace {

// A row's scores to exponentials relative to the largest so far. `all` are the columns that its strip uses, `own` those that the row's
// query sees; what lies between becomes 0. Returns by what earlier sums shrink.
template <class T>
T exponentiate(T* scores, const Range& all, const Range& own, T& largest, T& total) {
  const Vec<T> nothing = splat(-static_cast<T>(__builtin_inf()));
  if (own.empty()) {
    each_vector<T>(all, [&](int64_t at) { store(scores + at, zeros<T>()); });
    return 1;
  }
  Vec<T> top = nothing;
  each_vector<T>(own, [&](int64_t at) { top = max(top, keep(load(scores + at), at, own, nothing)); });
  const T before = largest, found = max_lane(top);
  largest = before > found ? before : found;
  const Vec<T> shift = splat(largest);
  Vec<T> sums = zeros<T>();
  each_vector<T>(all, [&](int64_t at) {
    const Vec<T> p = exp(keep(load(scores + at) - shift, at, own, nothing));
    store(scores + at, p);
    sums += p;
  });
  const T shrink = before == largest ? 1 : exp(splat(before - largest))[0];
  total = total * shrink + sum(sums);
  return shrink;
}

}  // namespace
}  // namespace blt::ops::BLT_ISA
