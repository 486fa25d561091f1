// Muon against a reference in double that goes by singular values, and what moves by which rule.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/io/safetensors.h"
#include "blt/train/loss.h"
#include "blt/train/optimizer.h"
#include "temporary_folder.h"
#include "train/small_model.h"
#include "train/update_rule.h"

namespace blt {
namespace {

using testing::sequence;
using testing::small_config;

// Newton-Schulz steps are odd polynomials: they move singular values and leave singular vectors alone.
torch::Tensor orthogonalized_by_svd(const torch::Tensor& matrix, int64_t steps) {
  const auto [u, s, vh] = torch::linalg_svd(matrix.to(torch::kDouble), /*full_matrices=*/false);
  torch::Tensor x = s / s.norm();
  for (int64_t i = 0; i < steps; ++i) x = 3.4445 * x - 4.7750 * x.pow(3) + 2.0315 * x.pow(5);
  return u.mm(torch::diag(x)).mm(vh);
}

TEST(Muon, MakesMatricesOrthogonal) {
  torch::manual_seed(1);
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{8, 8}, {5, 40}, {40, 5}, {1, 7}};
  for (const auto& [rows, columns] : shapes) {
    const torch::Tensor matrix = torch::randn({rows, columns});
    const torch::Tensor result = orthogonalized(matrix, 5);
    EXPECT_EQ(result.sizes(), matrix.sizes());
    EXPECT_LE((result - orthogonalized_by_svd(matrix, 5)).abs().max().item<double>(), 2e-4)
        << rows << " " << columns;
    const torch::Tensor values = torch::linalg_svdvals(result);
    EXPECT_GT(values.min().item<double>(), 0.3) << values;
    EXPECT_LT(values.max().item<double>(), 1.3) << values;
  }
  EXPECT_TRUE(torch::equal(orthogonalized(torch::zeros({3, 4}), 5), torch::zeros({3, 4})));
}

OptimizerConfig muon(double learning_rate, std::vector<ParameterGroup> groups = {}) {
  OptimizerConfig config;
  config.learning_rate = learning_rate;
  config.weight_decay = 0.3;
  config.matrices = RuleKind::kMuon;
  config.groups = std::move(groups);
  return config;
}

std::map<std::string, torch::Tensor> values_of(const Blt& model) {
  std::map<std::string, torch::Tensor> values;
  for (const auto& item : model->named_parameters()) values[item.key()] = item.value().detach().clone();
  return values;
}

Gradients gradients_of(Blt& model, const std::string& text) {
  const Batch batch = Batch::pack({sequence(text)});
  next_id_loss(model(batch), batch).sum.backward();
  return take_gradients(*model);
}

TEST(Muon, MovesMatricesInsideLayersAsItsPaperSaysAndTheRestByAdamW) {
  torch::manual_seed(1);
  Blt model(small_config());
  const OptimizerConfig config = muon(1e-2);
  OptimizerConfig without = config;
  without.matrices = RuleKind::kAdamW;
  Optimizer optimizer(config);
  std::map<std::string, torch::Tensor> momentum;
  std::set<std::string> by_muon;
  for (const char* text : {"the first text", "another one", "and a third, longer than these"}) {
    const std::map<std::string, torch::Tensor> before = values_of(model);
    const Gradients gradients = gradients_of(model, text);
    const ClipResult clipped = clip(gradients, 0.5);
    optimizer.step(gradients, clipped, 0.5);
    const std::map<std::string, torch::Tensor> after = values_of(model);
    for (const auto& item : gradients.dense) {
      if (!item.name.ends_with("_proj.weight") && !item.name.ends_with("_projection.weight")) continue;
      by_muon.insert(item.name);
      const torch::Tensor g = item.gradient.to(torch::kDouble) * clipped.scale.item<double>();
      torch::Tensor& m = momentum[item.name];
      m = m.defined() ? 0.95 * m + g : g;
      const double longer = static_cast<double>(std::max(g.size(0), g.size(1)));
      const torch::Tensor expected =
          before.at(item.name).to(torch::kDouble) * (1 - 0.5e-2 * 0.3) -
          0.5e-2 * 0.2 * std::sqrt(longer) * orthogonalized_by_svd(g + 0.95 * m, 5);
      EXPECT_LE((after.at(item.name) - expected).abs().max().item<double>(), 1e-6) << item.name;
    }
  }
  EXPECT_GT(by_muon.size(), 20U);
  for (const auto& [name, tensor, is_by_row] : optimizer.state()) {
    const std::string parameter = name.substr(0, name.rfind('.'));
    if (!name.ends_with(".step")) {
      EXPECT_EQ(name.ends_with(".momentum"), by_muon.count(parameter) != 0) << name;
    }
  }
  // The rest moves as it does without Muon.
  torch::manual_seed(1);
  Blt one(small_config());
  torch::manual_seed(1);
  Blt other(small_config());
  Optimizer with_muon(config), adamw(without);
  Gradients gradients = gradients_of(one, "some text");
  with_muon.step(gradients, clip(gradients, 0), 1.0);
  gradients = gradients_of(other, "some text");
  adamw.step(gradients, clip(gradients, 0), 1.0);
  const auto a = values_of(one), b = values_of(other);
  for (const auto& [name, value] : a)
    EXPECT_EQ(torch::equal(value, b.at(name)), by_muon.count(name) == 0) << name;
}

TEST(Muon, AStepThatIsNotFiniteChangesNothing) {
  torch::manual_seed(1);
  Blt model(small_config());
  Optimizer optimizer(muon(1e-2));
  const auto step = [&](bool masked) {
    Gradients gradients = gradients_of(model, "some text");
    if (masked) gradients.dense[3].gradient.view(-1)[0] = std::numeric_limits<float>::quiet_NaN();
    optimizer.step(gradients, clip(gradients, 1.0), 1.0);
  };
  for (const int64_t steps_before : {0, 1}) {
    if (steps_before > 0) step(false);
    const auto before = values_of(model);
    step(true);
    for (const auto& [name, value] : values_of(model))
      EXPECT_TRUE(torch::equal(value, before.at(name))) << name;
    for (const auto& [name, tensor, is_by_row] : optimizer.state())
      EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name;
  }
}

TEST(Muon, GroupsChooseTheRuleAndStateGoesOnBitForBit) {
  for (const bool narrow : {false, true}) {
    torch::manual_seed(1);
    Blt model(small_config()), other(small_config());
    const OptimizerConfig config = muon(1e-2, {{.pattern = "local_decoder.*", .rule = RuleKind::kAdamW},
                                               {.pattern = "lm_head.*", .rule = RuleKind::kMuon}});
    Optimizer optimizer(config), resumed(config);
    if (narrow) {
      optimizer.narrow(*model);
      resumed.narrow(*other);
    }
    Gradients gradients = gradients_of(model, "the first text");
    optimizer.step(gradients, clip(gradients, 0), 1.0);
    const blt_test::TemporaryFolder folder;
    save_optimizer(folder / "optimizer.safetensors", optimizer.state());
    const SafetensorsFile file(folder / "optimizer.safetensors");
    EXPECT_NE(file.find("lm_head.weight.momentum"), nullptr);
    EXPECT_EQ(file.find("local_decoder.layers.0.mlp.up_proj.weight.momentum"), nullptr);
    {
      const torch::NoGradGuard no_grad;
      for (const auto& item : model->named_parameters())
        other->named_parameters()[item.key()].copy_(item.value());
    }
    resumed.load(folder / "optimizer.safetensors", *other);
    for (Blt* one : {&model, &other}) {
      gradients = gradients_of(*one, "another one");
      (one == &model ? optimizer : resumed).step(gradients, clip(gradients, 0), 1.0);
    }
    for (const auto& [name, value] : values_of(model))
      EXPECT_TRUE(torch::equal(value, values_of(other).at(name))) << name;
    // Another rule has no use for the state.
    Optimizer adamw(OptimizerConfig{});
    EXPECT_THROW(adamw.load(folder / "optimizer.safetensors", *other), Error);
  }
}

TEST(Muon, RefusesWhatIsNoMatrix) {
  Blt model(small_config());
  EXPECT_THROW(freeze_groups(*model, {{.pattern = "*.input_layernorm.weight", .rule = RuleKind::kMuon}}),
               Error);
  EXPECT_THROW(freeze_groups(*model, {{.pattern = "*ngram_table", .rule = RuleKind::kMuon}}), Error);
}

}  // namespace
}  // namespace blt
