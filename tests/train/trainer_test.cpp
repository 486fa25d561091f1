#include "blt/train/trainer.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "blt/base/error.h"
#include "blt/base/signals.h"
#include "blt/data/state.h"
#include "blt/io/safetensors.h"
#include "file_content.h"
#include "message.h"
#include "temporary_folder.h"
#include "train/small_model.h"

namespace blt {
namespace {

using testing::RepeatBatches;
using testing::sequence;
using testing::small_config;

std::vector<Batch> two_batches() {
  return {Batch::pack({sequence("abcabcabcabcabc"), sequence("xyxyxyxyxy")}),
          Batch::pack({sequence("abcabcabcabcabcabc")})};
}

TrainerParts parts_for(const Blt& model, std::vector<Batch> batches) {
  TrainerParts parts;
  parts.model = trainable(model);
  parts.train = std::make_unique<RepeatBatches>(std::move(batches));
  return parts;
}

TrainConfig quick(int64_t steps) {
  TrainConfig config;
  config.steps = steps;
  config.optimizer.learning_rate = 1e-2;
  config.schedule = ConstantSchedule{};
  config.log_every = 1000;
  return config;
}

TEST(Trainer, LearnsATextThatRepeatsItself) {
  torch::manual_seed(3);
  Blt model(small_config());
  Trainer trainer(quick(60), parts_for(model, two_batches()));
  const double first = trainer.train_step().loss.item<double>();
  StepStats last;
  while (trainer.step() < 60) last = trainer.train_step();
  EXPECT_GT(first, 4.0);
  EXPECT_LT(last.loss.item<double>(), 0.5);
  EXPECT_EQ(last.bytes, 18);  // the second batch's
}

TEST(Trainer, InBfloat16TheLossFollowsFloat32) {
  std::vector<double> losses[2];
  for (const Compute compute : {Compute::kFloat32, Compute::kBfloat16}) {
    torch::manual_seed(3);
    Blt model(small_config());
    TrainConfig config = quick(50);
    config.compute = compute;
    config.accumulate = 2;
    config.optimizer.learning_rate = 3e-3;
    Trainer trainer(config, parts_for(model, two_batches()));
    while (trainer.step() < 50) {
      const StepStats stats = trainer.train_step();
      EXPECT_EQ(stats.loss.scalar_type(), torch::kFloat);
      losses[compute == Compute::kBfloat16].push_back(stats.loss.item<double>());
    }
    EXPECT_EQ(model->parameters()[0].scalar_type(),
              compute == Compute::kBfloat16 ? torch::kBFloat16 : torch::kFloat);
  }
  EXPECT_LT(losses[0].back(), losses[0].front() - 2);
  for (size_t i = 0; i < losses[0].size(); ++i)
    EXPECT_NEAR(losses[1][i], losses[0][i], 0.03 * losses[0][i] + 0.02) << "step " << i + 1;
  EXPECT_NE(losses[0], losses[1]);
}

TEST(Trainer, AStepDoesNotDependOnHowItIsSplitIntoBatches) {
  const std::vector<PatchedSequence> sequences = {sequence("abcabcabc"), sequence("a longer line of text"),
                                                  sequence("end")};
  std::vector<torch::Tensor> results[2];
  for (const bool split : {false, true}) {
    torch::manual_seed(3);
    Blt model(small_config());
    TrainConfig config = quick(3);
    config.accumulate = split ? 3 : 1;
    std::vector<Batch> batches;
    if (split)
      for (const auto& one : sequences) batches.push_back(Batch::pack({one}));
    else
      batches.push_back(Batch::pack(sequences));
    Trainer trainer(config, parts_for(model, batches));
    for (int i = 0; i < 3; ++i) trainer.train_step();
    for (const auto& parameter : model->parameters()) results[split].push_back(parameter.detach().clone());
  }
  for (size_t i = 0; i < results[0].size(); ++i)
    EXPECT_TRUE(torch::allclose(results[0][i], results[1][i], 1e-3, 1e-4)) << "parameter " << i;
}

TEST(Trainer, TheSameSeedGivesTheSameNumbers) {
  std::vector<double> losses[2];
  for (auto& run : losses) {
    torch::manual_seed(5);
    Blt model(small_config());
    Trainer trainer(quick(20), parts_for(model, two_batches()));
    for (int i = 0; i < 20; ++i) run.push_back(trainer.train_step().loss.item<double>());
  }
  EXPECT_EQ(losses[0], losses[1]);
}

TEST(Trainer, EndsWithTheStepNamedWhenALossIsNotFinite) {
  torch::manual_seed(3);
  Blt model(small_config());
  TrainerParts parts = parts_for(model, two_batches());
  int calls = 0;
  parts.loss = [&](const at::Tensor& logits, const Batch& batch) {
    LossValue value = next_id_loss(logits, batch);
    if (++calls == 4) value.sum = value.sum * std::numeric_limits<double>::quiet_NaN();
    return value;
  };
  Trainer trainer(quick(10), std::move(parts));
  try {
    trainer.run();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("step 4"), std::string::npos) << error.what();
  }
}

TEST(Trainer, SkipsAndCountsStepsThatAreNotFinite) {
  std::vector<torch::Tensor> results[2];
  for (const bool broken : {false, true}) {
    torch::manual_seed(3);
    Blt model(small_config());
    TrainerParts parts = parts_for(model, {two_batches()[0]});
    int calls = 0;
    parts.loss = [&](const at::Tensor& logits, const Batch& batch) {
      LossValue value = next_id_loss(logits, batch);
      if (broken && ++calls == 1) value.sum = value.sum * std::numeric_limits<double>::quiet_NaN();
      return value;
    };
    TrainConfig config = quick(broken ? 4 : 3);
    config.on_nonfinite = OnNonfinite::kSkip;
    Trainer trainer(config, std::move(parts));
    EXPECT_EQ(trainer.run(), Trainer::Outcome::kFinished);
    EXPECT_EQ(trainer.skipped(), broken ? 1 : 0);
    for (const auto& parameter : model->parameters()) results[broken].push_back(parameter.detach().clone());
  }
  for (size_t i = 0; i < results[0].size(); ++i) EXPECT_TRUE(torch::equal(results[0][i], results[1][i])) << i;
}

TEST(Trainer, SavesWholeCheckpointsAndStopsAfterASignal) {
  torch::manual_seed(3);
  const auto output = std::filesystem::path(::testing::TempDir()) / "trainer_test_stop";
  std::filesystem::remove_all(output);
  Blt model(small_config());
  TrainerParts parts = parts_for(model, two_batches());
  parts.output = output;
  parts.save = [] {
    return [](const std::filesystem::path& folder) { std::ofstream(folder / "model") << "whole"; };
  };
  int calls = 0;
  parts.loss = [&](const at::Tensor& logits, const Batch& batch) {
    if (++calls == 5) request_stop();
    return next_id_loss(logits, batch);
  };
  TrainConfig config = quick(100);
  config.checkpoint_every = 2;
  Trainer trainer(config, std::move(parts));
  EXPECT_EQ(trainer.run(), Trainer::Outcome::kStopped);
  clear_stop_request();
  EXPECT_EQ(trainer.step(), 5);
  for (const char* name : {"step_00000002", "step_00000004", "step_00000005", "latest"})
    EXPECT_TRUE(std::filesystem::exists(output / name / "model")) << name;
  EXPECT_EQ(std::filesystem::read_symlink(output / "latest"), "step_00000005");
  std::filesystem::remove_all(output);
}

// The training takes two more steps before a checkpoint is written: what is written is of the step before them.
TEST(Trainer, WritesCheckpointsFromCopiesWhileItGoesOn) {
  const blt_test::TemporaryFolder folder;
  torch::manual_seed(3);
  Blt model(small_config());
  TrainerParts parts = parts_for(model, two_batches());
  parts.output = folder / "run";
  std::atomic<int> steps{0};
  std::vector<at::Tensor> copies, written;
  parts.save = [&] {
    const at::Tensor copy = model->lm_head->weight.detach().clone();
    copies.push_back(copy);
    return [&, copy, wanted = copies.size() == 1 ? 4 : 0](const std::filesystem::path&) {
      for (int i = 0; i < 3000 && steps < wanted; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      EXPECT_GE(steps, wanted) << "the training waited for the checkpoint";
      written.push_back(copy);
    };
  };
  parts.loss = [&](const at::Tensor& logits, const Batch& batch) {
    ++steps;
    return next_id_loss(logits, batch);
  };
  TrainConfig config = quick(5);
  config.checkpoint_every = 2;
  Trainer trainer(config, std::move(parts));
  EXPECT_EQ(trainer.run(), Trainer::Outcome::kFinished);
  ASSERT_EQ(written.size(), 3u);
  for (const char* step : {"2", "4", "5"})
    EXPECT_TRUE(std::filesystem::exists(folder / ("run/step_0000000" + std::string(step)))) << step;
  // The optimizer's state too is that of its step.
  const SafetensorsFile state(folder / "run/step_00000002/optimizer.safetensors");
  EXPECT_EQ(state.tensor("lm_head.weight.step").item<float>(), 2);
  EXPECT_EQ(StateReader(content_of(folder / "run/step_00000002/trainer_state.json"), "state").integer("step"),
            2);
}

TEST(Trainer, SaysThatACheckpointCouldNotBeWrittenAndKeepsTheOneBefore) {
  const blt_test::TemporaryFolder folder;
  Blt model(small_config());
  TrainerParts parts = parts_for(model, two_batches());
  parts.output = folder / "run";
  int saves = 0;
  parts.save = [&] {
    return [fails = ++saves == 2](const std::filesystem::path&) {
      if (fails) throw Error("the disk is full");
    };
  };
  TrainConfig config = quick(100);
  config.checkpoint_every = 2;
  Trainer trainer(config, std::move(parts));
  EXPECT_MESSAGE(trainer.run(),
                 "step 4: the checkpoint was not saved: the disk is full; the last whole one is " +
                     (folder / "run/step_00000002").string());
  EXPECT_LE(trainer.step(), 6) << "no further checkpoint is begun";
  EXPECT_FALSE(std::filesystem::exists(folder / "run/step_00000004"));
}

TEST(Trainer, ReportsDataThatEndsEarly) {
  class Nothing : public Stage<Batch> {
    std::optional<Batch> next() override { return std::nullopt; }
    void save(StateWriter&) const override {}
    void load(const StateReader&) override {}
  };
  Blt model(small_config());
  TrainerParts parts = parts_for(model, two_batches());
  parts.train = std::make_unique<Nothing>();
  Trainer trainer(quick(3), std::move(parts));
  EXPECT_THROW(trainer.run(), Error);
}

}  // namespace
}  // namespace blt
