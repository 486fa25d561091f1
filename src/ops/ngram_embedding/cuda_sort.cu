// A radix sort: stable, so that sums are made in one order.
#include <cub/device/device_radix_sort.cuh>

#include "ops/ngram_embedding/cuda_rows_kernel.h"

namespace blt::ops::BLT_DEVICE {

size_t sort_rows(void* workspace, size_t workspace_bytes, const int32_t* keys, int32_t* sorted_keys,
                 const int32_t* sources, int32_t* sorted_sources, int32_t pairs, int32_t none,
                 Stream stream) {
  int bits = 1;
  while (bits < 31 && none >> bits != 0) ++bits;
  // No key is negative: as unsigned ones they sort alike, in fewer passes over fewer bits. CUB counts in the type that it is told the number
  // of pairs in.
  check_status(cub::DeviceRadixSort::SortPairs(
      workspace, workspace_bytes, reinterpret_cast<const uint32_t*>(keys),
      reinterpret_cast<uint32_t*>(sorted_keys), sources, sorted_sources, pairs, 0, bits, stream));
  return workspace_bytes;
}

}  // namespace blt::ops::BLT_DEVICE
