// Activations that are computed again (train.recompute) change no number, and take less memory.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <string>
#include <vector>

#include "blt/base/error.h"
#include "blt/train/trainer.h"
#include "message.h"
#include "train/ranks.h"
#include "train/small_model.h"

namespace blt {
namespace {

using testing::in_group;
using testing::RepeatBatches;
using testing::sequence;
using testing::small_config;

BltConfig with_dropout() {
  BltConfig config = small_config();
  config.latent_transformer.layers = 2;
  config.local_encoder.dropout = config.latent_transformer.dropout = config.local_decoder.dropout = 0.1;
  config.ngram.dropout = 0.1;
  return config;
}

// The parameters after four steps.
std::vector<at::Tensor> trained(const TrainConfig& config, Blt model,
                                const std::shared_ptr<Group>& group = nullptr,
                                const ParallelConfig& parallel = {}) {
  TrainerParts parts;
  parts.model = trainable(model);
  const bool is_first = group == nullptr || group->is_first();
  parts.train = std::make_unique<RepeatBatches>(std::vector<Batch>{
      Batch::pack({sequence(is_first ? "abcabcabcabcabc" : "another text"), sequence("xyxyxyxyxy")}),
      Batch::pack({sequence("abcabcabcabcabcabc")})});
  parts.group = group;
  parts.parallel = parallel;
  Trainer trainer(config, std::move(parts));
  for (int i = 0; i < 4; ++i) trainer.train_step();
  trainer.parallel().make_whole();
  std::vector<at::Tensor> result;
  for (const at::Tensor& parameter : model->parameters()) result.push_back(parameter.detach().clone());
  return result;
}

std::vector<at::Tensor> trained(const TrainConfig& config) {
  torch::manual_seed(3);
  return trained(config, Blt(with_dropout()));
}

TrainConfig steps(std::vector<std::string> recompute = {}) {
  TrainConfig config;
  config.optimizer.learning_rate = 1e-2;
  config.accumulate = 2;
  config.recompute = std::move(recompute);
  return config;
}

void expect_equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b,
                  const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(torch::equal(a[i], b[i])) << what << ", parameter " << i;
}

TEST(Recompute, GivesTheSameParametersBitForBit) {
  for (const Compute compute : {Compute::kFloat32, Compute::kBfloat16}) {
    TrainConfig kept = steps();
    kept.compute = compute;
    const std::vector<at::Tensor> expected = trained(kept);
    for (const std::vector<std::string>& patterns :
         {std::vector<std::string>{"latent_transformer.layers.*"}, {"latent_transformer.layers.1"}, {"*"}}) {
      TrainConfig config = kept;
      config.recompute = patterns;
      expect_equal(trained(config), expected, patterns[0] + " in " + std::string(name(compute)));
    }
  }
}

TEST(Recompute, GivesTheSameParametersWhereSomeAreFrozen) {
  for (const char* frozen : {"local_encoder.*", "latent_transformer.layers.0.*"}) {
    TrainConfig kept = steps();
    kept.optimizer.groups = {{.pattern = frozen, .frozen = true}};
    TrainConfig config = kept;
    config.recompute = {"*"};
    expect_equal(trained(config), trained(kept), frozen);
  }
}

// Ranks are threads here and share a generator, so there is no dropout, and models are made before.
TEST(Recompute, GivesTheSameParametersOnRanksThatDivideThem) {
  for (const Sharding sharding : {Sharding::kNone, Sharding::kZero2, Sharding::kZero3}) {
    std::vector<at::Tensor> results[2];  // of rank 0
    for (const bool again : {false, true}) {
      torch::manual_seed(3);
      const std::vector<Blt> models = {Blt(small_config()), Blt(small_config())};
      in_group(2, [&](const std::shared_ptr<Group>& group) {
        const auto parameters =
            trained(steps(again ? std::vector<std::string>{"*"} : std::vector<std::string>{}),
                    models[static_cast<size_t>(group->rank())], group, {.sharding = sharding});
        if (group->is_first()) results[again] = parameters;
      });
    }
    expect_equal(results[0], results[1], std::string(name(sharding)));
  }
}

TEST(Recompute, SaysWhichPatternMatchesNoLayer) {
  Blt model(small_config());
  EXPECT_MESSAGE(recompute_layers(*model, {"latent_transformer.layers.*", "latent.layers.*"}),
                 "recompute: the pattern latent.layers.* matches no layer; they have names such as ");
  recompute_layers(*model, {"local_decoder.layers.0"});
  int64_t set = 0;
  for (const auto& module : model->modules())
    if (const auto* layer = module->as<TransformerLayerImpl>()) set += layer->recompute;
  EXPECT_EQ(set, 1);
}

}  // namespace
}  // namespace blt
