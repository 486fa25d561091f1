// Who works on what in CUDA kernels, on the host.
#include "ops/cuda/partition.h"

#include <gtest/gtest.h>

#include <vector>

namespace blt::ops::BLT_DEVICE {
namespace {

TEST(CudaPartition, FindsTheSegmentOfEveryRow) {
  for (const std::vector<int32_t>& lengths :
       {std::vector<int32_t>{1}, {3, 1, 4}, {0, 2, 0, 0, 5, 1, 0}, {1000, 1, 0, 2}}) {
    std::vector<int32_t> offsets{0}, segment_of_row;
    for (size_t s = 0; s < lengths.size(); ++s) {
      offsets.push_back(offsets.back() + lengths[s]);
      segment_of_row.insert(segment_of_row.end(), lengths[s], static_cast<int32_t>(s));
    }
    for (size_t row = 0; row < segment_of_row.size(); ++row)
      EXPECT_EQ(segment_of(offsets.data(), static_cast<int64_t>(lengths.size()), static_cast<int64_t>(row)),
                segment_of_row[row])
          << "row " << row;
  }
}

TEST(CudaPartition, CountsTheSmallerOnes) {
  const std::vector<int32_t> values{2, 3, 5, 9};
  const std::vector<int64_t> expected{0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 4};
  for (int64_t limit = 0; limit < 12; ++limit)
    EXPECT_EQ(count_below(values.data(), 4, limit), expected[limit]) << limit;
  EXPECT_EQ(count_below(nullptr, 0, 7), 0);
}

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
