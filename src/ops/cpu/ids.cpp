#include "ops/cpu/ids.h"

#include "blt/batch.h"
#include "ops/cpu/ids_kernel.h"

namespace blt::ops {

void ids_of_bytes(std::string_view bytes, int32_t* ids) {
  BLT_KERNEL(ids_of_bytes)
  (reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int64_t>(bytes.size()), kByteOffset, ids);
}

IdCensus census(const int32_t* ids, int64_t count) {
  IdCensus result;
  BLT_KERNEL(census)(ids, count, kByteOffset, &result.largest, &result.special);
  return result;
}

}  // namespace blt::ops
