#include "ops/swiglu_cases.h"

#include <limits>

#include "message.h"
#include "op_tests.h"

BLT_OP_TESTS(Swiglu, swiglu_case(3, 5), swiglu_case(1, 1), swiglu_case(0, 8), swiglu_case(4, 16),
             swiglu_case(33, 67), swiglu_case(120, 512));

namespace blt {
namespace {

using ops::swiglu;

TEST(Swiglu, ValuesByHand) {
  const at::Tensor gate = at::tensor({0.0, std::log(3.0), -std::log(3.0)}).view({1, 3});
  const at::Tensor up = at::tensor({5.0, 4.0, 4.0}).view({1, 3});
  // sigmoid(log 3) = 3/4.
  const at::Tensor expected = at::tensor({0.0, 3 * std::log(3.0), -std::log(3.0)}).view({1, 3});
  EXPECT_TRUE(at::allclose(swiglu(gate, up), expected, 1e-12));
}

TEST(Swiglu, LargeGatesNeitherOverflowNorLoseTheirGradient) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor gate = at::tensor({-1e4, -100.0, 100.0, 1e4}).to(type).view({1, 4}).requires_grad_();
    const at::Tensor up = at::ones({1, 4}, type);
    const at::Tensor out = swiglu(gate, up);
    EXPECT_TRUE(at::allclose(out, at::tensor({0.0, 0.0, 100.0, 1e4}).to(type).view({1, 4})));
    out.sum().backward();
    EXPECT_TRUE(at::allclose(gate.grad(), at::tensor({0.0, 0.0, 1.0, 1.0}).to(type).view({1, 4})));
  }
}

TEST(Swiglu, AnElementDoesNotDependOnItsPlace) {
  Rng rng(1);
  const at::Tensor gate = rng.normal({90, 37}).to(at::kFloat), up = rng.normal({90, 37}).to(at::kFloat);
  const at::Tensor all = swiglu(gate, up);
  for (const int64_t row : {0, 1, 44, 89})
    EXPECT_TRUE(at::equal(swiglu(gate.narrow(0, row, 1), up.narrow(0, row, 1))[0], all[row])) << row;
}

TEST(Swiglu, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::ones({2, 3});
  EXPECT_MESSAGE(swiglu(at::ones({3}), at::ones({3})), "gate must be [N, F]");
  EXPECT_MESSAGE(swiglu(x, at::ones({3, 2})), "up must be like gate");
  EXPECT_MESSAGE(swiglu(x, x.to(at::kDouble)), "up is Double");
  EXPECT_MESSAGE(swiglu(x, x.to(at::kMeta)), "on meta");
  EXPECT_MESSAGE(swiglu(x.to(at::kLong), x.to(at::kLong)), "must be floating");
}

}  // namespace
}  // namespace blt
