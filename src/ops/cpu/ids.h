// Vocabulary ids (blt/batch.h), many at once.
#pragma once

#include <cstdint>
#include <string_view>

namespace blt::ops {

// One id a byte.
void ids_of_bytes(std::string_view bytes, int32_t* ids);

}  // namespace blt::ops
