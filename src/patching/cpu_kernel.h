// Rules that answer for many ids at once, and what becomes of their answers.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

constexpr int64_t kMarkGroup = 64;     // marks are read in whole groups
constexpr int64_t kStartsAtOnce = 16;  // starts are written so many at a time

// marks[i] = whether a patch starts after ids[i] by the space rule; count >= 1. Ids below `first_byte` are special.
BLT_DECLARE_KERNEL(void space_marks(const int32_t* ids, int64_t count, int32_t first_byte, uint8_t* marks))
// The places after marks that are 1 (others are 0), in order; returns how many. `marks` are zero up to a whole group; `starts` has room
// for count + kStartsAtOnce.
BLT_DECLARE_KERNEL(int64_t starts_after(const uint8_t* marks, int64_t count, int64_t* starts))

}  // namespace blt::ops
