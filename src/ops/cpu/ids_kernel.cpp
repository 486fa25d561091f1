// A pass that compilers make vectors of.
#include "ops/cpu/ids_kernel.h"

namespace blt::ops::BLT_ISA {

void ids_of_bytes(const uint8_t* bytes, int64_t count, int32_t first_byte, int32_t* ids) {
  for (int64_t i = 0; i < count; ++i) ids[i] = bytes[i] + first_byte;
}

}  // namespace blt::ops::BLT_ISA
