#include "ops/linear_cases.h"

#include <ATen/Context.h>

#include "blt/ops/arithmetic.h"
#include "message.h"
#include "op_tests.h"

BLT_OP_TESTS(Linear, linear_case(3, 5, 4), linear_case(1, 1, 1), linear_case(0, 8, 3), linear_case(2, 8, 0),
             linear_case(33, 67, 20));

namespace blt {
namespace {

// Large enough for whichever library the CPU takes for large products.
TEST(Linear, LargeProductsAreThoseOfTheReference) {
  Rng rng(1);
  const at::Tensor x64 = rng.normal({600, 256}), w64 = rng.normal({300, 256}),
                   seed64 = rng.normal({600, 300});
  const at::Tensor x = x64.to(at::kFloat).requires_grad_(), w = w64.to(at::kFloat).requires_grad_();
  const at::Tensor y = ops::linear(x, w);
  EXPECT_TRUE(at::allclose(y.to(at::kDouble), x64.matmul(w64.t()), 1e-4, 1e-4));
  y.backward(seed64.to(at::kFloat));
  EXPECT_TRUE(at::allclose(x.grad().to(at::kDouble), seed64.matmul(w64), 1e-4, 1e-4));
  EXPECT_TRUE(at::allclose(w.grad().to(at::kDouble), seed64.t().matmul(x64), 1e-4, 1e-4));
  // Rows that do not lie side by side.
  const at::Tensor wide = at::cat({x.detach(), x.detach()}, 1);
  EXPECT_TRUE(at::allclose(ops::linear(wide.narrow(1, 256, 256), w), y, 1e-4, 1e-4));
}

TEST(Linear, ComputesNoGradientThatNobodyAskedFor) {
  const at::Tensor x = at::ones({2, 3}), w = at::ones({4, 3}).requires_grad_();
  ops::linear(x, w).sum().backward();
  EXPECT_FALSE(x.grad().defined());
  EXPECT_TRUE(at::equal(w.grad(), at::full({4, 3}, 2.0)));
}

TEST(Linear, SumsIn16BitsCanBeForbidden) {
  at::Context& context = at::globalContext();
  ops::sum_products_in_float32();
  EXPECT_EQ(context.allowBF16ReductionCuBLAS(),
            at::CuBLASReductionOption::DisallowReducedPrecisionAllowSplitK);
  EXPECT_EQ(context.allowFP16ReductionCuBLAS(),
            at::CuBLASReductionOption::DisallowReducedPrecisionAllowSplitK);
  EXPECT_FALSE(context.allowTF32CuBLAS());
}

TEST(Linear, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::ones({2, 3});
  EXPECT_MESSAGE(ops::linear(at::ones({3}), at::ones({3, 3})), "x must be [N, in]");
  EXPECT_MESSAGE(ops::linear(x, at::ones({3, 2})), "weight must be [out, 3], got [3, 2]");
  EXPECT_MESSAGE(ops::linear(x, at::ones({2, 3}, at::kDouble)), "weight is Double");
  EXPECT_MESSAGE(ops::linear(x, at::ones({2, 3}, at::kMeta)), "on meta");
  EXPECT_MESSAGE(ops::linear(x.to(at::kLong), at::ones({2, 3}, at::kLong)), "must be floating");
}

}  // namespace
}  // namespace blt
