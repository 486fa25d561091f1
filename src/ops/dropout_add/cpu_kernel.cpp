// Element by element, 8 bytes each and 4 more with a residual (float). A vector's random numbers are made in registers of 32-bit integers.
#include "ops/dropout_add/cpu_kernel.h"

#include "ops/cpu/tail.h"
#include "ops/dropout_add/random.h"

namespace blt::ops::BLT_ISA {
namespace {

typedef uint32_t Integers __attribute__((vector_size(kRegisterBytes)));
constexpr int kIntegers = kRegisterBytes / 4;

// Index 0, 1, 2, … of a register's lanes.
inline Integers lane_indices() {
  Integers result{};
  for (int lane = 0; lane < kIntegers; ++lane) result[lane] = static_cast<uint32_t>(lane);
  return result;
}

// x where the element stays, else 0. `index`: of the vector's first element, below 2^32.
inline Vec<float> staying(const Vec<float>& x, uint32_t index, const DropoutKeys& keys, uint32_t threshold) {
  Vec<float> result;
  BLT_EACH_REGISTER(i) {
    const Integers n = lane_indices() + (index + static_cast<uint32_t>(i * kIntegers));
    result.r[i] = dropout_random(n, keys) >= threshold ? x.r[i] : Register<float>::Values{};
  }
  return result;
}

inline Vec<double> staying(const Vec<double>& x, uint32_t index, const DropoutKeys& keys,
                           uint32_t threshold) {
  Vec<double> result = x;
  for (int lane = 0; lane < kLanes<double>; ++lane)
    if (dropout_random(index + static_cast<uint32_t>(lane), keys) < threshold) result.set(lane, 0);
  return result;
}

// Elements whose indices have the same high 32 bits.
template <class T>
void dropout_block(const DropoutAdd<T>& a, int64_t first, int64_t last) {
  const DropoutKeys keys = dropout_keys(a.seed, static_cast<uint64_t>(first) >> 32);
  const Vec<T> scale = splat(a.scale);
  for (int64_t i = first; i < last; i += kLanes<T>) {
    const int64_t left = last - i;
    Vec<T> y = staying(load_some(a.x + i, left), static_cast<uint32_t>(i), keys, a.threshold) * scale;
    if (a.residual != nullptr) y += load_some(a.residual + i, left);
    store_some(a.out + i, y, left);
  }
}

}  // namespace

template <class T>
void dropout_add(const DropoutAdd<T>& a, int64_t first, int64_t last) {
  constexpr int64_t kBlock = int64_t{1} << 32;
  while (first < last) {
    const int64_t end = (first / kBlock + 1) * kBlock;
    const int64_t stop = end < last ? end : last;
    dropout_block(a, first, stop);
    first = stop;
  }
}

template void dropout_add(const DropoutAdd<float>&, int64_t, int64_t);
template void dropout_add(const DropoutAdd<double>&, int64_t, int64_t);

}  // namespace blt::ops::BLT_ISA
