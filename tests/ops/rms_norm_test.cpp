#include "ops/rms_norm_cases.h"

#include <torch/csrc/autograd/autograd.h>

#include "message.h"
#include "op_tests.h"

BLT_OP_TESTS(RmsNorm, rms_norm_case(3, 5), rms_norm_case(1, 1), rms_norm_case(0, 8), rms_norm_case(7, 16),
             rms_norm_case(70, 65), rms_norm_case(300, 48), rms_norm_case(129, 768), add_rms_norm_case(3, 5),
             add_rms_norm_case(1, 1), add_rms_norm_case(0, 8), add_rms_norm_case(70, 65),
             add_rms_norm_case(129, 768));

namespace blt {
namespace {

using ops::rms_norm;

TEST(RmsNorm, ARowByHand) {
  const at::Tensor x = at::tensor({3.0, 4.0}).view({1, 2}), weight = at::tensor({2.0, 10.0});
  // mean(x^2) = 12.5.
  const at::Tensor expected = at::tensor({6.0, 40.0}).view({1, 2}) / std::sqrt(12.5);
  EXPECT_TRUE(at::allclose(rms_norm(x, weight, 0), expected, 1e-12));
}

TEST(RmsNorm, EpsKeepsARowOfZerosFinite) {
  const at::Tensor x = at::zeros({2, 9}).requires_grad_(), weight = at::ones({9});
  const at::Tensor out = rms_norm(x, weight, 1e-5);
  EXPECT_TRUE(at::equal(out, at::zeros({2, 9})));
  out.sum().backward();
  EXPECT_TRUE(at::allclose(x.grad(), at::full({2, 9}, 1 / std::sqrt(1e-5)), 1e-5));
}

TEST(RmsNorm, ARowDoesNotDependOnTheOthers) {
  Rng rng(1);
  const at::Tensor x = rng.normal({200, 100}).to(at::kFloat), weight = rng.normal({100}).to(at::kFloat);
  const at::Tensor all = rms_norm(x, weight, 1e-5);
  for (const int64_t row : {0, 1, 63, 64, 199})
    EXPECT_TRUE(at::equal(rms_norm(x.narrow(0, row, 1), weight, 1e-5)[0], all[row])) << row;
}

TEST(AddRmsNorm, EqualsASumAndItsNormBitForBit) {
  Rng rng(2);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const at::Tensor x = rng.normal({70, 33}).to(type), added = rng.normal({70, 33}).to(type),
                     weight = rng.normal({33}).to(type);
    const auto [sum, normed] = ops::add_rms_norm(x, added, weight, 1e-5);
    EXPECT_TRUE(at::equal(sum, x + added)) << type;
    EXPECT_TRUE(at::equal(normed, rms_norm(x + added, weight, 1e-5))) << type;
  }
}

TEST(AddRmsNorm, AResultThatNobodyUsesHasNoGradient) {
  Rng rng(3);
  const at::Tensor x = rng.normal({4, 6}).requires_grad_(), added = rng.normal({4, 6}).requires_grad_(),
                   weight = rng.normal({6}).requires_grad_();
  const auto grads = [&](const at::Tensor& result) {
    return torch::autograd::grad({result.square().sum()}, {x, added, weight}, {}, {}, false, true);
  };
  for (const bool of_sum : {true, false}) {
    const auto [ours_sum, ours_normed] = ops::add_rms_norm(x, added, weight, 1e-5);
    const Tensors got = grads(of_sum ? ours_sum : ours_normed),
                  expected = grads(of_sum ? x + added : rms_norm(x + added, weight, 1e-5));
    for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(at::allclose(got[i], expected[i], 1e-12, 1e-12)) << i;
    ASSERT_EQ(got[2].defined(), !of_sum);
    if (!of_sum) {
      EXPECT_TRUE(at::allclose(got[2], expected[2], 1e-12, 1e-12));
    }
  }
}

TEST(RmsNorm, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::ones({2, 3}), weight = at::ones({3});
  EXPECT_MESSAGE(rms_norm(at::ones({3}), weight, 0), "x must be [N, C]");
  EXPECT_MESSAGE(rms_norm(at::ones({2, 0}), at::ones({0}), 0), "x must be [N, C]");
  EXPECT_MESSAGE(rms_norm(x, at::ones({4}), 0), "weight must be [3]");
  EXPECT_MESSAGE(rms_norm(x, at::ones({1, 3}), 0), "weight must be [3]");
  EXPECT_MESSAGE(rms_norm(x.to(at::kInt), weight, 0), "must be floating");
  EXPECT_MESSAGE(rms_norm(x, weight.to(at::kDouble), 0), "weight is Double");
  EXPECT_MESSAGE(rms_norm(x, weight.to(at::kMeta), 0), "on meta");
  EXPECT_MESSAGE(ops::add_rms_norm(x, at::ones({3, 2}), weight, 0),
                 "what is added must be like x [2, 3], got [3, 2]");
  EXPECT_MESSAGE(ops::add_rms_norm(x, x.to(at::kHalf), weight, 0), "added is Half");
  EXPECT_MESSAGE(ops::add_rms_norm(x, x.to(at::kMeta), weight, 0), "on meta");
}

}  // namespace
}  // namespace blt
