// In the place of CUB's radix sort (cuda_sort.cu).
#include <algorithm>
#include <numeric>
#include <vector>

#include "ops/ngram_embedding/cuda_rows_kernel.h"

namespace blt::ops::BLT_DEVICE {

size_t sort_rows(void* workspace, size_t, const int32_t* keys, int32_t* sorted_keys, const int32_t* sources,
                 int32_t* sorted_sources, int32_t pairs, int32_t, Stream) {
  if (workspace == nullptr) return 1;
  std::vector<int64_t> order(pairs);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return keys[a] < keys[b]; });
  for (int64_t i = 0; i < pairs; ++i) {
    sorted_keys[i] = keys[order[i]];
    sorted_sources[i] = sources[order[i]];
  }
  return 1;
}

}  // namespace blt::ops::BLT_DEVICE
