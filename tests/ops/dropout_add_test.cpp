#include "ops/dropout_add_cases.h"

#include <cmath>

#include "message.h"
#include "op_tests.h"

BLT_OP_TESTS(DropoutAdd, dropout_add_case(3, 5, 0.3, true), dropout_add_case(1, 1, 0.5, false),
             dropout_add_case(0, 8, 0.5, true), dropout_add_case(33, 67, 0.1, true),
             dropout_add_case(120, 512, 0.9, false), dropout_add_case(7, 9, 0.0, true),
             dropout_add_case(7, 9, 1.0, true), dropout_add_case(7, 9, 1.0, false));

namespace blt {
namespace {

using ops::dropout_add;

TEST(DropoutAdd, ASeedLeavesOutItsShareAndAnotherSeedOthers) {
  constexpr int64_t kCount = 1 << 20;
  const at::Tensor x = at::ones({kCount}), a = dropout_add(x, 0.25, 1), b = dropout_add(x, 0.25, 2);
  for (const at::Tensor& y : {a, b}) {
    const double dropped = (y == 0).sum().item<double>() / kCount;
    EXPECT_NEAR(dropped, 0.25, 5 * std::sqrt(0.25 * 0.75 / kCount));
    EXPECT_TRUE(at::equal(y.masked_select(y != 0), at::full({(y != 0).sum().item<int64_t>()}, 1 / 0.75f)));
  }
  const double both = ((a == 0) & (b == 0)).sum().item<double>() / kCount;
  EXPECT_NEAR(both, 0.0625, 5 * std::sqrt(0.0625 / kCount));
}

TEST(DropoutAdd, NeighboursAreLeftOutIndependently) {
  constexpr int64_t kCount = 1 << 20;
  const at::Tensor dropped = dropout_add(at::ones({kCount}), 0.5, 3) == 0;
  for (const int64_t lag : {1, 2, 16, 64, 256, 1024}) {
    const at::Tensor both = dropped.narrow(0, 0, kCount - lag) & dropped.narrow(0, lag, kCount - lag);
    EXPECT_NEAR(both.sum().item<double>() / static_cast<double>(kCount - lag), 0.25,
                5 * std::sqrt(0.25 / kCount))
        << lag;
  }
}

TEST(DropoutAdd, SaysTheSameForATypeOfAnyWidth) {
  const at::Tensor x = at::ones({100, 37});
  const at::Tensor stays = dropout_add(x, 0.5, 9) != 0;
  for (const at::ScalarType type : {at::kDouble, at::kHalf, at::kBFloat16})
    EXPECT_TRUE(at::equal(dropout_add(x.to(type), 0.5, 9) != 0, stays)) << type;
}

TEST(DropoutAdd, KeepsNothingForItsBackward) {
  const at::Tensor x = at::ones({64, 64}).requires_grad_(), residual = at::ones({64, 64}).requires_grad_();
  const at::Tensor y = dropout_add(x, 0.5, 4, residual);
  y.sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), y.detach() - 1));
  EXPECT_TRUE(at::equal(residual.grad(), at::ones({64, 64})));
}

TEST(DropoutAdd, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::ones({2, 3});
  EXPECT_MESSAGE(dropout_add(x.to(at::kLong), 0.5, 1), "x must be floating");
  EXPECT_MESSAGE(dropout_add(x, 1.5, 1), "between 0 and 1, got 1.5");
  EXPECT_MESSAGE(dropout_add(x, -0.5, 1), "between 0 and 1");
  EXPECT_MESSAGE(dropout_add(x, std::nan(""), 1), "between 0 and 1");
  EXPECT_MESSAGE(dropout_add(x, 0.5, 1, at::ones({3, 2})), "residual must be like x");
  EXPECT_MESSAGE(dropout_add(x, 0.5, 1, x.to(at::kDouble)), "residual is Double");
}

}  // namespace
}  // namespace blt
