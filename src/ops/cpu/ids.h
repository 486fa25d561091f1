// Vocabulary ids (blt/batch.h), many at once.
#pragma once

#include <cstdint>
#include <string_view>

namespace blt::ops {

// One id a byte.
void ids_of_bytes(std::string_view bytes, int32_t* ids);

struct IdCensus {
  uint32_t largest = 0;  // negative ids count as very large
  int64_t special = 0;   // below kByteOffset
};
IdCensus census(const int32_t* ids, int64_t count);

}  // namespace blt::ops
