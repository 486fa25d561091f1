// Which bytes the space rule counts as space-like. Alone in its header, for the CPU kernel: see src/ops/cpu/simd.h.
#pragma once

#include <cstdint>

namespace blt {

// ASCII that is neither digit nor letter, the first bytes of UTF-8 sequences, and what is no byte (above 0xFF). Without branches, which
// text would mispredict at every other word, and without a table, so that many bytes are told at once.
static constexpr bool is_space_like(uint32_t byte) {
  const int digit = static_cast<int>(byte - '0' < 10), letter = static_cast<int>((byte | 0x20) - 'a' < 26);
  const int continuation = static_cast<int>(byte - 0x80 < 0x40);
  return (digit | letter | continuation) == 0;
}

}  // namespace blt
