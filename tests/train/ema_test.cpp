// Averages of the weights against a loop in double, and over a checkpoint.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <map>
#include <string>

#include "blt/io/model_copy.h"
#include "blt/io/model_dir.h"
#include "blt/train/trainer.h"
#include "temporary_folder.h"
#include "train/small_model.h"

namespace blt {
namespace {

using testing::RepeatBatches;
using testing::sequence;
using testing::small_config;

constexpr const char* kTable = "local_encoder.embedding.ngram_table";

TrainConfig quick(bool tables) {
  TrainConfig config;
  config.steps = 8;
  config.optimizer.learning_rate = 1e-2;
  config.optimizer.groups = {{.pattern = "local_decoder.norm.weight", .frozen = true}};
  config.schedule = ConstantSchedule{};
  config.log_every = 1000;
  config.ema = EmaConfig{.decay = 0.3, .tables = tables};
  return config;
}

struct Averaged {
  Blt model{nullptr}, average{nullptr};
  std::unique_ptr<Trainer> trainer;
};

Averaged run_of(const TrainConfig& config, const std::filesystem::path& output = {}) {
  Averaged run;
  torch::manual_seed(3);
  run.model = Blt(small_config());
  run.average = Blt(small_config());
  TrainerParts parts;
  parts.model = trainable(run.model);
  parts.train = std::make_unique<RepeatBatches>(
      std::vector<Batch>{Batch::pack({sequence("abcabcabcabc")}), Batch::pack({sequence("xyxyxyxyxyx")})});
  parts.output = output;
  const auto save = [](const Blt& model) {
    return copy_to_save(
        LoadedModel{.config = {.blt = model->config(), .patching = {.rule = BytePatching{}}}, .blt = model});
  };
  parts.save = [save, model = run.model] { return save(model); };
  parts.average = {.module = run.average.ptr(),
                   .save = [save, average = run.average] { return save(average); },
                   .load =
                       [average = run.average](const std::filesystem::path& folder) {
                         load_weights(folder, average, EntropyModel(nullptr));
                       }};
  run.trainer = std::make_unique<Trainer>(config, std::move(parts));
  return run;
}

TEST(Ema, AveragesWhatALoopDoes) {
  for (const bool tables : {false, true}) {
    const Averaged run = run_of(quick(tables));
    std::map<std::string, torch::Tensor> expected;
    for (const auto& item : run.model->named_parameters())
      expected[item.key()] = item.value().detach().to(torch::kDouble);
    for (int64_t t = 0; t < 6; ++t) {
      run.trainer->train_step();
      const double decay = std::min(0.3, (1.0 + static_cast<double>(t)) / (10.0 + static_cast<double>(t)));
      for (const auto& item : run.model->named_parameters()) {
        const torch::Tensor now = item.value().detach().to(torch::kDouble);
        const bool averaged = tables || item.key() != kTable;
        expected[item.key()] = averaged ? decay * expected[item.key()] + (1 - decay) * now : now;
      }
    }
    for (const auto& item : run.average->named_parameters()) {
      EXPECT_LE((item.value() - expected[item.key()]).abs().max().item<double>(), 1e-6) << item.key();
      const bool is_own = torch::equal(item.value(), run.model->named_parameters()[item.key()]);
      EXPECT_EQ(is_own, (!tables && item.key() == kTable) || item.key() == "local_decoder.norm.weight")
          << item.key();
    }
  }
}

TEST(Ema, GoesOnBitForBitAndIsAModel) {
  const blt_test::TemporaryFolder folder;
  for (const Compute compute : {Compute::kFloat32, Compute::kBfloat16}) {
    const std::string name = compute == Compute::kFloat32 ? "float32" : "bfloat16";
    TrainConfig config = quick(false);
    config.compute = compute;
    config.optimizer.matrices = RuleKind::kMuon;
    config.accumulate_from = {{.step = 2, .batches = 2}, {.step = 6, .batches = 3}};
    config.checkpoint_every = 4;
    const Averaged whole = run_of(config, folder / (name + "/whole"));
    EXPECT_EQ(whole.trainer->run(), Trainer::Outcome::kFinished);
    const LoadedModel averaged = load_model(folder / (name + "/whole/step_00000008/ema"));
    for (const auto& item : averaged.blt->named_parameters())
      EXPECT_TRUE(torch::equal(item.value(), whole.average->named_parameters()[item.key()].to(torch::kFloat)))
          << item.key();

    const Averaged rest = run_of(config, folder / (name + "/rest"));
    load_weights(folder / (name + "/whole/step_00000004"), rest.model, EntropyModel(nullptr));
    rest.trainer->resume(folder / (name + "/whole/step_00000004"));
    EXPECT_EQ(rest.trainer->run(), Trainer::Outcome::kFinished);
    for (const bool average : {false, true}) {
      const auto expected = (average ? whole.average : whole.model)->named_parameters();
      for (const auto& item : (average ? rest.average : rest.model)->named_parameters())
        EXPECT_TRUE(torch::equal(item.value(), expected[item.key()])) << name << " " << item.key();
    }
  }
}

}  // namespace
}  // namespace blt
