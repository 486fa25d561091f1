// What the kernels of ids.h are called with. first_byte: the id of byte 0.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

BLT_DECLARE_KERNEL(void ids_of_bytes(const uint8_t* bytes, int64_t count, int32_t first_byte, int32_t* ids))
BLT_DECLARE_KERNEL(void census(const int32_t* ids, int64_t count, int32_t first_byte, uint32_t* largest,
                               int64_t* special))

}  // namespace blt::ops
