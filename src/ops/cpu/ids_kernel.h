// What the kernel of ids.h is called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

// first_byte: the id of byte 0.
BLT_DECLARE_KERNEL(void ids_of_bytes(const uint8_t* bytes, int64_t count, int32_t first_byte, int32_t* ids))

}  // namespace blt::ops
