#include "ops/cross_entropy_cases.h"

#include <cmath>
#include <limits>

#include "message.h"
#include "op_tests.h"

BLT_OP_TESTS(CrossEntropy, cross_entropy_case(3, 5), cross_entropy_case(1, 1), cross_entropy_case(0, 8),
             cross_entropy_case(2, 16), cross_entropy_case(40, 33), cross_entropy_case(150, 260));

namespace blt {
namespace {

using ops::cross_entropy;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

at::Tensor ids(std::vector<int32_t> values) { return at::tensor(values, at::kInt); }

TEST(CrossEntropy, RowsByHand) {
  const double third = std::log(3.0);
  const at::Tensor logits = at::tensor({0.0, 0.0, 0.0, 0.0, third, -kInfinity}).view({2, 3});
  const auto [nll, entropy, argmax] = cross_entropy(logits, ids({2, 1}));
  // Three equal ones; then 1/4, 3/4 and never.
  EXPECT_NEAR(nll[0].item<double>(), third, 1e-12);
  EXPECT_NEAR(entropy[0].item<double>(), third, 1e-12);
  EXPECT_NEAR(nll[1].item<double>(), std::log(4.0 / 3), 1e-12);
  EXPECT_NEAR(entropy[1].item<double>(), 0.25 * std::log(4.0) + 0.75 * std::log(4.0 / 3), 1e-12);
  EXPECT_TRUE(at::equal(argmax, ids({0, 1})));
}

TEST(CrossEntropy, TheSmallestOfEqualIdsIsTheArgmax) {
  at::Tensor logits = at::zeros({4, 260});
  for (const int64_t id : {17, 18, 33, 259}) logits[1][id] = 2;
  logits[2][259] = 1;
  logits[3][40] = logits[3][23] = 5;  // lanes 8 and 7: the later lane comes first
  EXPECT_TRUE(at::equal(cross_entropy(logits, ids({0, 0, 0, 0})).argmax, ids({0, 17, 259, 23})));
}

TEST(CrossEntropy, AgreesWithLibTorchOnHugeAndTinyLogits) {
  Rng rng(1);
  for (const double scale : {1e-4, 1.0, 30.0, 1e4}) {
    const at::Tensor logits = (rng.normal({64, 260}) * scale + 1000).to(at::kFloat);
    const at::Tensor targets = rng.integer({64}, 0, 260);
    const auto [nll, entropy, argmax] = cross_entropy(logits, targets);
    const at::Tensor exact = logits.to(at::kDouble);
    const at::Tensor log_p = at::log_softmax(exact, -1);
    const at::Tensor expected = at::cross_entropy_loss(exact, targets.to(at::kLong), {}, at::Reduction::None);
    EXPECT_TRUE(at::allclose(nll.to(at::kDouble), expected, 2e-6, 2e-6)) << scale;
    EXPECT_TRUE(at::allclose(entropy.to(at::kDouble), -(log_p.exp() * log_p).sum(-1), 2e-6, 2e-6)) << scale;
    EXPECT_TRUE(at::equal(argmax, exact.argmax(-1).to(at::kInt))) << scale;
  }
}

TEST(CrossEntropy, IdsOfNoProbabilityAddNothing) {
  at::Tensor logits = at::full({1, 40}, -kInfinity);
  logits[0][3] = logits[0][37] = 1.5;
  logits.requires_grad_();
  const auto [nll, entropy, argmax] = cross_entropy(logits, ids({37}));
  EXPECT_NEAR(entropy.item<double>(), std::log(2.0), 1e-6);
  EXPECT_NEAR(nll.item<double>(), std::log(2.0), 1e-6);
  EXPECT_EQ(argmax.item<int32_t>(), 3);
  nll.sum().backward();
  EXPECT_NEAR(logits.grad()[0][3].item<double>(), 0.5, 1e-6);
  EXPECT_NEAR(logits.grad()[0][37].item<double>(), -0.5, 1e-6);
  EXPECT_EQ(logits.grad().count_nonzero().item<int64_t>(), 2);
}

TEST(CrossEntropy, NaNStaysWhereItIs) {
  at::Tensor logits = at::zeros({2, 20});
  logits[0][7] = NAN;
  const auto [nll, entropy, argmax] = cross_entropy(logits, ids({1, 1}));
  EXPECT_TRUE(std::isnan(nll[0].item<double>()));
  EXPECT_TRUE(std::isnan(entropy[0].item<double>()));
  EXPECT_NEAR(nll[1].item<double>(), std::log(20.0), 1e-6);
}

TEST(CrossEntropy, IgnoredRowsHaveNoLossAndNoGradient) {
  Rng rng(1);
  const at::Tensor logits = rng.normal({3, 260}).to(at::kFloat).requires_grad_();
  const auto [nll, entropy, argmax] = cross_entropy(logits, ids({kIgnore, 4, kIgnore}));
  EXPECT_EQ(nll[0].item<float>(), 0);
  EXPECT_GT(entropy[0].item<float>(), 0);
  EXPECT_FALSE(entropy.requires_grad());
  EXPECT_FALSE(argmax.requires_grad());
  nll.sum().backward();
  EXPECT_EQ(logits.grad()[0].count_nonzero().item<int64_t>(), 0);
  EXPECT_EQ(logits.grad()[2].count_nonzero().item<int64_t>(), 0);
  EXPECT_GT(logits.grad()[1].count_nonzero().item<int64_t>(), 200);
}

TEST(CrossEntropy, ARowDoesNotDependOnTheOthers) {
  Rng rng(1);
  const at::Tensor logits = rng.normal({300, 260}).to(at::kFloat), targets = rng.integer({300}, 0, 260);
  const auto all = cross_entropy(logits, targets);
  for (const int64_t row : {0, 150, 299}) {
    const auto one = cross_entropy(logits.narrow(0, row, 1), targets.narrow(0, row, 1));
    EXPECT_TRUE(at::equal(one.nll[0], all.nll[row])) << row;
    EXPECT_TRUE(at::equal(one.entropy[0], all.entropy[row])) << row;
  }
}

TEST(CrossEntropy, RefusesWhatDoesNotFit) {
  const at::Tensor logits = at::zeros({2, 5});
  EXPECT_MESSAGE(cross_entropy(at::zeros({5}), ids({1})), "logits must be [T, V]");
  EXPECT_MESSAGE(cross_entropy(at::zeros({2, 0}), ids({1, 1})), "logits must be [T, V]");
  EXPECT_MESSAGE(cross_entropy(logits.to(at::kInt), ids({1, 1})), "must be floating");
  EXPECT_MESSAGE(cross_entropy(logits, ids({1})), "targets must be [2] int32");
  EXPECT_MESSAGE(cross_entropy(logits, ids({1, 1}).to(at::kLong)), "targets must be [2] int32");
  EXPECT_MESSAGE(cross_entropy(logits, ids({1, 1}).to(at::kMeta)), "targets on meta");
  EXPECT_MESSAGE(cross_entropy(logits, ids({1, 5})), "target 5 of row 1 is not in the vocabulary of 5");
  EXPECT_MESSAGE(cross_entropy(logits, ids({-1, 0})), "target -1 of row 0");
}

}  // namespace
}  // namespace blt
