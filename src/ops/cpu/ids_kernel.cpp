// One pass each, which compilers make vectors of.
#include "ops/cpu/ids_kernel.h"

namespace blt::ops::BLT_ISA {

void ids_of_bytes(const uint8_t* bytes, int64_t count, int32_t first_byte, int32_t* ids) {
  for (int64_t i = 0; i < count; ++i) ids[i] = bytes[i] + first_byte;
}

void census(const int32_t* ids, int64_t count, int32_t first_byte, uint32_t* largest, int64_t* special) {
  uint32_t most = 0;
  int32_t found = 0;  // ids of a batch are fewer than 2^31
  for (int64_t i = 0; i < count; ++i) {
    const auto id = static_cast<uint32_t>(ids[i]);
    most = most < id ? id : most;
    found += static_cast<int32_t>(ids[i] < first_byte);
  }
  *largest = most;
  *special = found;
}

}  // namespace blt::ops::BLT_ISA
