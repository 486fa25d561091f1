#include "ops/cpu/ids.h"

#include "blt/batch.h"
#include "ops/cpu/ids_kernel.h"

namespace blt::ops {

void ids_of_bytes(std::string_view bytes, int32_t* ids) {
  const auto kernel = BLT_KERNEL(ids_of_bytes);
  kernel(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int64_t>(bytes.size()), kByteOffset,
         ids);
}

}  // namespace blt::ops
