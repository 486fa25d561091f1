#include "ops/rms_norm_cases.h"

#include "message.h"
#include "op_tests.h"

BLT_OP_TESTS(RmsNorm, rms_norm_case(3, 5), rms_norm_case(1, 1), rms_norm_case(0, 8), rms_norm_case(7, 16),
             rms_norm_case(70, 65), rms_norm_case(300, 48), rms_norm_case(129, 768));

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

TEST(RmsNorm, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::ones({2, 3}), weight = at::ones({3});
  EXPECT_MESSAGE(rms_norm(at::ones({3}), weight, 0), "x must be [N, C]");
  EXPECT_MESSAGE(rms_norm(at::ones({2, 0}), at::ones({0}), 0), "x must be [N, C]");
  EXPECT_MESSAGE(rms_norm(x, at::ones({4}), 0), "weight must be [3]");
  EXPECT_MESSAGE(rms_norm(x, at::ones({1, 3}), 0), "weight must be [3]");
  EXPECT_MESSAGE(rms_norm(x.to(at::kInt), weight, 0), "must be floating");
  EXPECT_MESSAGE(rms_norm(x, weight.to(at::kDouble), 0), "weight is Double");
  EXPECT_MESSAGE(rms_norm(x, weight.to(at::kMeta), 0), "on meta");
}

}  // namespace
}  // namespace blt
