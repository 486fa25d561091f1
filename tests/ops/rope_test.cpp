#include "ops/rope_cases.h"

#include <ATen/core/grad_mode.h>

#include "message.h"
#include "op_tests.h"

BLT_OP_TESTS(Rope, rope_case(3, 2, 4, 9), rope_case(1, 1, 2, 1), rope_case(0, 2, 8, 3), rope_case(5, 0, 8, 3),
             rope_case(17, 3, 22, 40), rope_case(60, 4, 64, 512), rope_case(9, 2, 300, 11),
             rope_in_place_case(3, 2, 4, 9), rope_in_place_case(17, 3, 22, 40),
             rope_in_place_case(0, 2, 8, 3), rope_in_place_case(9, 2, 300, 11));

namespace blt {
namespace {

using ops::rope;

TEST(Rope, AQuarterTurn) {
  // Two pairs: the first turns by 90 degrees, the second stays.
  const at::Tensor x = at::tensor({1.0, 2.0, 3.0, 4.0}).view({1, 1, 4});
  const at::Tensor cos = at::tensor({1.0, 1.0, 0.0, 1.0}).view({2, 2}),
                   sin = at::tensor({0.0, 0.0, 1.0, 0.0}).view({2, 2});
  EXPECT_TRUE(at::equal(rope(x, at::zeros({1}, at::kInt), cos, sin), x));
  EXPECT_TRUE(at::equal(rope(x, at::ones({1}, at::kInt), cos, sin),
                        at::tensor({-2.0, 1.0, 3.0, 4.0}).view({1, 1, 4})));
}

TEST(Rope, ProductsDependOnTheDistanceAlone) {
  Rng rng(1);
  const int64_t E = 32, M = 100;
  const at::Tensor angles = rope_angles(M, E);
  const at::Tensor q = rng.normal({1, 1, E}), k = rng.normal({1, 1, E});
  const auto at_position = [&](const at::Tensor& x, int64_t position) {
    return rope(x, at::full({1}, position, at::kInt), angles.cos(), angles.sin());
  };
  const double product = (at_position(q, 12) * at_position(k, 5)).sum().item<double>();
  EXPECT_NEAR((at_position(q, 97) * at_position(k, 90)).sum().item<double>(), product, 1e-11);
  EXPECT_GT(std::abs((at_position(q, 12) * at_position(k, 6)).sum().item<double>() - product), 1e-3);
}

TEST(Rope, ARowDoesNotDependOnTheOthers) {
  Rng rng(1);
  const at::Tensor angles = rope_angles(50, 22).to(at::kFloat), positions = rng.integer({400}, 0, 50);
  const at::Tensor x = rng.normal({400, 3, 22}).to(at::kFloat);
  const at::Tensor all = rope(x, positions, angles.cos(), angles.sin());
  for (const int64_t row : {0, 7, 399})
    EXPECT_TRUE(at::equal(
        rope(x.narrow(0, row, 1), positions.narrow(0, row, 1), angles.cos(), angles.sin())[0], all[row]))
        << row;
}

TEST(Rope, InPlaceTakesNoMemoryAndGivesTheSame) {
  Rng rng(2);
  const at::Tensor angles = rope_angles(50, 8), positions = rng.integer({40}, 0, 50);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const auto table_type = type == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor cos = angles.cos().to(table_type), sin = angles.sin().to(table_type);
    for (const bool contiguous : {true, false}) {
      const at::Tensor all = rng.normal({40, 3, 16}).to(type);
      at::Tensor x = contiguous ? all.narrow(2, 0, 8).contiguous() : all.narrow(2, 0, 8);
      const at::Tensor expected = rope(x, positions, cos, sin);
      const at::Tensor turned = ops::rope_in_place(x, positions, cos, sin);
      EXPECT_TRUE(at::equal(turned, expected)) << type;
      EXPECT_EQ(turned.const_data_ptr(), x.const_data_ptr()) << type;
    }
  }
}

TEST(Rope, InPlaceRefusesALeafAndTheOperatorAGradient) {
  const at::Tensor x = at::ones({2, 1, 4}).requires_grad_(), table = at::ones({3, 2}),
                   positions = at::zeros({2}, at::kInt);
  EXPECT_MESSAGE(ops::rope_in_place(x, positions, table, table), "a leaf that requires a gradient");
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(ops::rope_in_place(x, positions, table, table)[0].flatten(),
                        at::tensor({0.f, 2.f, 0.f, 2.f})));
}

TEST(Rope, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::ones({2, 1, 4}), table = at::ones({3, 2}), positions = at::zeros({2}, at::kInt);
  EXPECT_MESSAGE(rope(at::ones({2, 4}), positions, table, table), "x must be [T, H, E]");
  EXPECT_MESSAGE(rope(at::ones({2, 1, 3}), positions, table, table), "must be even, got 3");
  EXPECT_MESSAGE(rope(x, positions.to(at::kLong), table, table), "positions must be [2] int32");
  EXPECT_MESSAGE(rope(x, at::zeros({3}, at::kInt), table, table), "positions must be [2] int32");
  EXPECT_MESSAGE(rope(x, positions, at::ones({3, 4}), table), "cos and sin must be [M, 2]");
  EXPECT_MESSAGE(rope(x, positions, table, at::ones({4, 2})), "cos and sin must be [M, 2]");
  EXPECT_MESSAGE(rope(x.to(at::kDouble), positions, table, table), "must be [M, 2] Double, got Float");
  EXPECT_MESSAGE(rope(x, positions.to(at::kMeta), table, table), "on meta");
  EXPECT_MESSAGE(rope(x, at::full({2}, 3, at::kInt), table, table), "position 3 of row 0 is outside");
  EXPECT_MESSAGE(rope(x, at::full({2}, -1, at::kInt), table, table), "position -1 of row 0 is outside");
}

}  // namespace
}  // namespace blt
