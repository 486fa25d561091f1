#include "ops/swiglu_linear_cases.h"

#include "blt/ops/linear.h"
#include "blt/ops/swiglu.h"
#include "memory_meter.h"
#include "message.h"
#include "op_tests.h"

BLT_OP_TESTS(SwigluLinear, swiglu_linear_case(3, 5, 4), swiglu_linear_case(0, 8, 3),
             swiglu_linear_case(33, 67, 20));

namespace blt {
namespace {

TEST(SwigluLinear, EqualsItsTwoHalvesBitForBit) {
  Rng rng(1);
  const auto parameter = [&](int64_t rows, int64_t columns) {
    return rng.normal({rows, columns}).to(at::kFloat).requires_grad_();
  };
  const at::Tensor gate = parameter(50, 40), up = parameter(50, 40), weight = parameter(30, 40);
  const at::Tensor seed = rng.normal({50, 30}).to(at::kFloat);
  const at::Tensor whole = ops::swiglu_linear(gate, up, weight);
  const auto whole_grads = torch::autograd::grad({whole}, {gate, up, weight}, {seed});
  const at::Tensor halves = ops::linear(ops::swiglu(gate, up), weight);
  const auto halves_grads = torch::autograd::grad({halves}, {gate, up, weight}, {seed});
  EXPECT_TRUE(at::equal(whole, halves));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(whole_grads[i], halves_grads[i])) << i;
}

TEST(SwigluLinear, KeepsNoActivationForTheBackward) {
  const at::Tensor gate = at::ones({256, 512}).requires_grad_(), up = at::ones({256, 512}).requires_grad_(),
                   weight = at::ones({8, 512}).requires_grad_();
  at::Tensor whole, halves;
  const auto held = [](const auto& f) {
    MemoryMeter meter;
    // What is still there when f is done: a second call starts from it.
    return meter.peak([&] {
      f();
      const at::Tensor large = at::empty({1 << 20});
    });
  };
  const int64_t one = held([&] { whole = ops::swiglu_linear(gate, up, weight); });
  const int64_t two = held([&] { halves = ops::linear(ops::swiglu(gate, up), weight); });
  EXPECT_EQ(two - one, static_cast<int64_t>(256 * 512 * sizeof(float)));
}

TEST(SwigluLinear, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::ones({2, 3});
  EXPECT_MESSAGE(ops::swiglu_linear(x, at::ones({2, 4}), at::ones({1, 3})), "swiglu: up must be like gate");
  EXPECT_MESSAGE(ops::swiglu_linear(x, x, at::ones({1, 4})), "linear: weight must be [out, 3]");
}

}  // namespace
}  // namespace blt
