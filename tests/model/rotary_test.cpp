// Rotary tables: the references' angles, at positions of any length, on any device.
#include <ATen/Context.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "blt/model/transformer.h"

namespace blt {
namespace {

constexpr int64_t kHeadDim = 64, kLongest = 70'000;
constexpr double kTheta = 500'000;

at::Tensor frequencies() {
  return torch::pow(kTheta, torch::arange(0, kHeadDim, 2, torch::kFloat).div_(static_cast<double>(kHeadDim)))
      .reciprocal_();
}

// What is expected of positions: cosines, in float64, of products rounded to float32.
at::Tensor cosines(const std::vector<int64_t>& positions) {
  const at::Tensor frequency = frequencies();
  at::Tensor result = torch::empty({static_cast<int64_t>(positions.size()), kHeadDim / 2}, torch::kDouble);
  for (size_t p = 0; p < positions.size(); ++p)
    for (int64_t i = 0; i < kHeadDim / 2; ++i) {
      const volatile float angle = static_cast<float>(positions[p]) * frequency.const_data_ptr<float>()[i];
      result.index_put_({static_cast<int64_t>(p), i}, std::cos(static_cast<double>(angle)));
    }
  return result;
}

TEST(RotaryTable, HasTheAnglesOfTheReferencesAtLongPositions) {
  const RotaryTable table(kHeadDim, kTheta);
  const std::vector<int64_t> positions{0, 1, 511, 65'535, 65'536, 65'537, kLongest - 1};
  const RotaryTable::View view = table.view(kLongest, torch::kFloat);
  const at::Tensor rows = torch::tensor(positions);
  EXPECT_LE((view.cos.index_select(0, rows) - cosines(positions)).abs().max().item<double>(), 2e-7);
  EXPECT_LE((view.cos.square() + view.sin.square() - 1).slice(0, 0, kLongest).abs().max().item<double>(),
            4e-7);
}

TEST(RotaryTable, GrowsWithoutChangingWhatItHad) {
  const RotaryTable table(kHeadDim, kTheta);
  const RotaryTable::View before = table.view(100, torch::kFloat), after = table.view(3000, torch::kFloat);
  EXPECT_GE(before.cos.size(0), 100);
  EXPECT_TRUE(torch::equal(before.cos, after.cos.slice(0, 0, before.cos.size(0))));
  EXPECT_TRUE(torch::equal(before.sin, after.sin.slice(0, 0, before.sin.size(0))));
  EXPECT_EQ(table.view(10, torch::kDouble).cos.scalar_type(), torch::kDouble);
  EXPECT_TRUE(torch::equal(table.view(100, torch::kFloat).cos.slice(0, 0, 100), before.cos.slice(0, 0, 100)));
  EXPECT_TRUE(table.view(10, torch::TensorOptions(torch::kFloat).device(torch::kMeta)).cos.is_meta());
}

TEST(RotaryTable, OnCudaIsThatOfTheCpu) {
  if (!at::hasCUDA() || at::getNumGPUs() == 0) GTEST_SKIP() << "no CUDA device";
  const RotaryTable table(kHeadDim, kTheta);
  const RotaryTable::View here = table.view(kLongest, torch::kFloat),
                          there =
                              table.view(kLongest, torch::TensorOptions(torch::kFloat).device(torch::kCUDA));
  EXPECT_LE((here.cos - there.cos.cpu()).abs().max().item<double>(), 3e-7);
  EXPECT_LE((here.sin - there.sin.cpu()).abs().max().item<double>(), 3e-7);
}

}  // namespace
}  // namespace blt
