// Many ids at once: what a compiler makes vectors of.
#include "patching/cpu_kernel.h"

#include "blt/patching/space_like.h"

namespace blt::ops::BLT_ISA {

void space_marks(const int32_t* ids, int64_t count, int32_t first_byte, uint8_t* marks) {
  const auto space = [first_byte](int32_t id) {
    return static_cast<int>(is_space_like(static_cast<uint32_t>(id - first_byte)));
  };
  marks[0] = 1;
  for (int64_t i = 1; i < count; ++i) {
    const int special = static_cast<int>(ids[i] < first_byte);
    marks[i] = static_cast<uint8_t>(special | (space(ids[i]) & (space(ids[i - 1]) ^ 1)));
  }
}

int64_t starts_after(const uint8_t* marks, int64_t count, int64_t* starts) {
  int64_t* to = starts;
  for (int64_t first = 0; first < count; first += kMarkGroup) {
    uint64_t bits = 0;
    for (int part = 0; part < 8; ++part) {
      uint64_t eight;
      __builtin_memcpy(&eight, marks + first + 8 * part, sizeof(eight));
      bits |= (eight * 0x0102040810204080u >> 56)
              << (8 * part);  // the lowest bits of eight bytes side by side
    }
    // How many there are is hard to predict, so some are written that do not count.
    const int64_t found = __builtin_popcountll(bits);
    for (int64_t done = 0; done < found; done += kStartsAtOnce) {
#pragma GCC unroll 16
      for (int64_t i = done; i < done + kStartsAtOnce; ++i, bits &= bits - 1)
        to[i] = first + 1 + (bits == 0 ? 64 : __builtin_ctzll(bits));
    }
    to += found;
  }
  return to - starts;
}

}  // namespace blt::ops::BLT_ISA
