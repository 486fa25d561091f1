// Pairs lie side by side, so a vector holds whole pairs: out = x * (c, c) + (its pairs swapped) * (-s, s). The
// factors are laid out once for all heads of a row. 8 bytes an element move (float).
#include "ops/rope/cpu_kernel.h"

#include "ops/cpu/tail.h"

namespace blt::ops::BLT_ISA {
namespace {

constexpr int64_t kBlock = 256;  // columns whose factors are laid out at once

template <class T>
inline Vec<T> swap_pairs(const Vec<T>& x) {
  Vec<T> result;
  BLT_EACH_REGISTER(i) result.r[i] = shuffled<T>(x.r[i], x.r[i], [](int lane) { return lane ^ 1; });
  return result;
}

}  // namespace

template <class T>
void rope(const Rope<T>& a, int64_t first_row, int64_t last_row) {
  for (int64_t start = 0; start < a.width; start += kBlock) {
    const int64_t columns = a.width - start < kBlock ? a.width - start : kBlock;
    alignas(kVectorBytes) T cosines[kBlock];
    alignas(kVectorBytes) T sines[kBlock];
    for (int64_t row = first_row; row < last_row; ++row) {
      const int64_t table = (a.positions[row] * a.width + start) / 2;
      const T* const cos = a.cos + table;
      const T* const sin = a.sin + table;
      const T sign = a.inverse ? -1 : 1;
      for (int64_t pair = 0; pair < columns / 2; ++pair) {
        cosines[2 * pair] = cosines[2 * pair + 1] = cos[pair];
        sines[2 * pair] = -sign * sin[pair];
        sines[2 * pair + 1] = sign * sin[pair];
      }
      for (int64_t head = 0; head < a.heads; ++head) {
        const int64_t at = (row * a.heads + head) * a.width + start;
        for (int64_t c = 0; c < columns; c += kLanes<T>) {
          const int64_t left = columns - c;
          const Vec<T> x = load_some(a.x + at + c, left);
          store_some(a.out + at + c,
                     x * load_some(cosines + c, left) + swap_pairs(x) * load_some(sines + c, left), left);
        }
      }
    }
  }
}

template void rope(const Rope<float>&, int64_t, int64_t);
template void rope(const Rope<double>&, int64_t, int64_t);

}  // namespace blt::ops::BLT_ISA
