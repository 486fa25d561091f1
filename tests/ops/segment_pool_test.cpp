#include "blt/ops/segment_pool.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "message.h"
#include "op_tests.h"
#include "segment_pool_cases.h"

BLT_OP_TESTS(SegmentPool, segment_pool_case(13, 5, 3, Pooling::kMax),
             segment_pool_case(13, 5, 3, Pooling::kMean), segment_pool_case(13, 5, 3, Pooling::kMin),
             segment_pool_case(1, 1, 1, Pooling::kMax), segment_pool_case(40, 9, 150, Pooling::kMax),
             segment_pool_case(40, 9, 150, Pooling::kMean), segment_pool_case(40, 40, 32, Pooling::kMin),
             segment_pool_case(3000, 2, 16, Pooling::kMax), segment_pool_case(3000, 2, 17, Pooling::kMean),
             segment_pool_case(0, 0, 8, Pooling::kMax), segment_pool_case(0, 0, 8, Pooling::kMean));

namespace blt {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(SegmentPool, TheFirstWinnerTakesTheGradient) {
  for (const Pooling pooling : {Pooling::kMax, Pooling::kMin}) {
    at::Tensor x = at::zeros({5, 20});
    x.requires_grad_();
    ops::segment_pool(x, Segments::from_lengths({2, 3}), pooling).sum().backward();
    const at::Tensor expected = at::tensor({1.f, 0.f, 1.f, 0.f, 0.f}).unsqueeze(1).expand({5, 20});
    EXPECT_TRUE(at::equal(x.grad(), expected));
  }
}

TEST(SegmentPool, NanWinsWhereverItIs) {
  for (const Pooling pooling : {Pooling::kMax, Pooling::kMin, Pooling::kMean})
    for (int64_t row = 0; row < 3; ++row) {
      at::Tensor x = at::arange(3 * 18, at::kFloat).reshape({3, 18});
      x[row][4] = kNan;
      x[row][17] = kNan;
      x.requires_grad_();
      const at::Tensor pooled = ops::segment_pool(x, Segments::from_lengths({3}), pooling);
      EXPECT_EQ(pooled.isnan().sum().item<int64_t>(), 2) << row;
      EXPECT_TRUE(std::isnan(pooled[0][4].item<float>()) && std::isnan(pooled[0][17].item<float>()));
      if (pooling == Pooling::kMean) continue;
      pooled.sum().backward();
      EXPECT_EQ(x.grad()[row][4].item<float>(), 1);
      EXPECT_EQ(x.grad().sum().item<float>(), 18);
    }
}

TEST(SegmentPool, ASegmentDoesNotDependOnItsNeighbours) {
  Rng rng(5);
  const at::Tensor x = rng.normal({60, 37}).to(at::kFloat);
  for (const Pooling pooling : {Pooling::kMax, Pooling::kMin, Pooling::kMean}) {
    const at::Tensor packed = ops::segment_pool(x, Segments::from_lengths({7, 40, 13}), pooling);
    const at::Tensor alone = ops::segment_pool(x.slice(0, 7, 47), Segments::from_lengths({40}), pooling);
    EXPECT_TRUE(at::equal(packed[1], alone[0]));
  }
}

TEST(SegmentPool, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::zeros({4, 3});
  const auto call = [](const at::Tensor& input, const Segments& segments) {
    return ops::segment_pool(input, segments, Pooling::kMax);
  };
  EXPECT_MESSAGE(call(x[0], Segments::from_lengths({3})), "x must be [N, C] floating, got Float [3]");
  EXPECT_MESSAGE(call(x.to(at::kLong), Segments::from_lengths({4})), "x must be [N, C] floating, got Long");
  EXPECT_MESSAGE(call(x, Segments::from_lengths({3})), "the segments cover 3 rows, but x has 4");
  EXPECT_MESSAGE(call(x, Segments::from_lengths({4, 0}, true)), "segment 1 is empty");
  EXPECT_MESSAGE(call(x, Segments{}), "the segments of x are undefined");
}

}  // namespace
}  // namespace blt
