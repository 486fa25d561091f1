#include "blt/train/trainer.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
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

using testing::quick;
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

// A model directory of one file, which `write` fills, without tensors.
std::function<ModelToSave()> rest_by(const std::function<void(const std::filesystem::path&)>& write) {
  return [write] { return ModelToSave{.tensors = {}, .write_rest = write}; };
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
  EXPECT_EQ(last.text.bytes, 18);  // the second batch's
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
  TrainConfig config = quick(10);
  config.on_nonfinite = OnNonfinite::kStop;
  Trainer trainer(config, std::move(parts));
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
    Trainer trainer(quick(broken ? 4 : 3), std::move(parts));
    EXPECT_EQ(trainer.run(), Trainer::Outcome::kFinished);
    EXPECT_EQ(trainer.skipped(), broken ? 1 : 0);
    for (const auto& parameter : model->parameters()) results[broken].push_back(parameter.detach().clone());
  }
  for (size_t i = 0; i < results[0].size(); ++i) EXPECT_TRUE(torch::equal(results[0][i], results[1][i])) << i;
}

TEST(Trainer, NamesTheTextOfAStepThatWasSkipped) {
  torch::manual_seed(3);
  Blt model(small_config());
  PatchedSequence first = sequence("abcabc"), second = sequence("xyxyxy"), third = sequence("another");
  first.place = {.source = 0, .file = 0, .line = 7};
  second.place = {.source = 0, .file = 0, .line = 8};
  third.place = {.source = 0, .file = 0, .line = 9};
  const blt_test::TemporaryFolder folder;
  TrainConfig config = quick(4);
  config.accumulate = 2;
  for (const bool in_the_loss : {false, true}) {  // else in the gradient alone
    TrainerParts parts = parts_for(model, {Batch::pack({first, second}), Batch::pack({third})});
    parts.output = folder / (in_the_loss ? "loss" : "gradient");
    parts.name_text = [](const TextPlace& place) { return "line " + std::to_string(place.line); };
    parts.loss = [in_the_loss, calls = 0](const at::Tensor& logits, const Batch& batch) mutable {
      LossValue value = next_id_loss(logits, batch);
      if (++calls != 3) return value;  // the first batch of the second step
      const double broken = std::numeric_limits<double>::quiet_NaN();
      value.sum = in_the_loss ? value.sum * broken : value.sum + (logits * 0).sqrt().sum();
      return value;
    };
    Trainer trainer(config, std::move(parts));
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(trainer.run(), Trainer::Outcome::kFinished);
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(trainer.skipped(), 1);
    const std::string texts = in_the_loss ? "line 7, line 8" : "line 7, line 8, line 9";
    const std::string what =
        in_the_loss ? "the loss is not finite (" : "the gradient is not finite (the loss is ";
    EXPECT_NE(said.find("step 2: skipped: " + what), std::string::npos) << said;
    EXPECT_NE(said.find("it read " + texts + "\n"), std::string::npos) << said;
    const std::string rows =
        content_of((in_the_loss ? folder / "loss" : folder / "gradient") / "metrics.jsonl");
    EXPECT_NE(rows.find(R"({"step":2,"skipped":"nonfinite","documents":["line 7","line 8")"),
              std::string::npos)
        << rows;
  }
}

// A trainer of one batch whose loss, at the calls that `changes` says, is multiplied.
Trainer trainer_with(const Blt& model, const TrainConfig& config, const std::function<double(int)>& factor) {
  TrainerParts parts = parts_for(model, {two_batches()[0]});
  parts.loss = [factor, calls = 0](const at::Tensor& logits, const Batch& batch) mutable {
    LossValue value = next_id_loss(logits, batch);
    value.sum = value.sum * factor(++calls);
    return value;
  };
  return Trainer(config, std::move(parts));
}

TEST(Trainer, EndsWhereTooManyStepsInARowAreSkipped) {
  torch::manual_seed(3);
  Blt model(small_config());
  TrainConfig config = quick(40);
  config.skip_limit = 3;
  Trainer trainer = trainer_with(model, config, [](int call) {
    return call % 5 < 2 || call > 20 ? std::numeric_limits<double>::quiet_NaN() : 1.0;
  });
  EXPECT_MESSAGE(trainer.run(), "step 22: 3 steps in a row were skipped (train.skip_limit)");
}

TEST(Trainer, LeavesTheModelAloneAtASpikeOfTheLoss) {
  std::vector<torch::Tensor> results[3];
  for (const int spikes : {0, 1, 2}) {  // none, skipped, warned about
    torch::manual_seed(3);
    Blt model(small_config());
    TrainConfig config = quick(spikes == 1 ? 21 : 20);
    config.optimizer.learning_rate = 1e-4;
    config.max_grad_norm = 0;  // clipping would hide a gradient's length
    config.spike = {.action = spikes == 2 ? OnSpike::kWarn : OnSpike::kSkip, .deviations = 6, .window = 10};
    Trainer trainer =
        trainer_with(model, config, [&](int call) { return spikes > 0 && call == 15 ? 3.0 : 1.0; });
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(trainer.run(), Trainer::Outcome::kFinished);
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(trainer.skipped(), spikes == 1 ? 1 : 0);
    EXPECT_EQ(said.find("step 15: the loss 18.8") != std::string::npos, spikes == 2) << said;
    for (const auto& parameter : model->parameters()) results[spikes].push_back(parameter.detach().clone());
  }
  for (size_t i = 0; i < results[0].size(); ++i) {
    EXPECT_TRUE(torch::equal(results[0][i], results[1][i])) << i;
  }
  EXPECT_FALSE(torch::equal(results[0][0], results[2][0]));
  Blt model(small_config());
  TrainConfig config = quick(20);
  config.spike = {.action = OnSpike::kStop, .deviations = 6, .window = 5};
  Trainer stopping = trainer_with(model, config, [&](int call) { return call == 8 ? 9.0 : 1.0; });
  EXPECT_MESSAGE(stopping.run(), "far above those before (mean ");
  EXPECT_EQ(stopping.step(), 8);
}

// Far above those before, and no number: what on_nonfinite says counts.
TEST(Trainer, ASpikeDoesNotHideWhatIsNotFinite) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const bool in_the_loss : {true, false})  // else in the gradient of a spike
    for (const OnSpike action : {OnSpike::kWarn, OnSpike::kSkip, OnSpike::kStop})
      for (const OnNonfinite on_nonfinite : {OnNonfinite::kStop, OnNonfinite::kSkip}) {
        torch::manual_seed(3);
        Blt model(small_config());
        TrainConfig config = quick(20);
        config.optimizer.learning_rate = 1e-4;
        config.on_nonfinite = on_nonfinite;
        config.spike = {.action = action, .deviations = 6, .window = 10};
        TrainerParts parts = parts_for(model, {two_batches()[0]});
        parts.loss = [in_the_loss, calls = 0](const at::Tensor& logits, const Batch& batch) mutable {
          LossValue value = next_id_loss(logits, batch);
          if (++calls != 15) return value;
          value.sum = in_the_loss ? value.sum * kInfinity : value.sum * 3 + (logits * 0).sqrt().sum();
          return value;
        };
        Trainer trainer(config, std::move(parts));
        if (on_nonfinite == OnNonfinite::kStop) {
          EXPECT_MESSAGE(trainer.run(), in_the_loss ? "step 15: the loss is not finite (inf)"
                                                    : "step 15: the gradient is not finite (the loss is ");
        } else {
          EXPECT_EQ(trainer.run(), Trainer::Outcome::kFinished);
        }
        EXPECT_EQ(trainer.skipped(), 1);
      }
}

TEST(LossGuard, GoesOnExactlyFromItsState) {
  torch::manual_seed(1);
  const SpikeConfig config{.action = OnSpike::kSkip, .deviations = 4, .window = 20};
  const at::Tensor losses = torch::randn({200}) * 0.1 + 2;
  losses[150] = 20.0;
  losses[160] = std::numeric_limits<double>::quiet_NaN();
  LossGuard guard(config), first(config);
  std::vector<int64_t> spikes;
  for (int64_t i = 0; i < 200; ++i) {
    if (guard.see(losses[i]).item<bool>()) spikes.push_back(i);
    if (i < 100) first.see(losses[i]);
  }
  EXPECT_EQ(spikes, std::vector<int64_t>{150});
  EXPECT_NEAR(guard.mean(), 2, 0.1);
  EXPECT_NEAR(guard.deviation(), 0.1, 0.04);
  StateWriter state;
  first.save(state);
  LossGuard second(config);
  second.load(StateReader(state.json(), "state"));
  for (int64_t i = 100; i < 200; ++i) second.see(losses[i]);
  EXPECT_EQ(second.mean(), guard.mean());
  EXPECT_EQ(second.deviation(), guard.deviation());
}

TEST(Trainer, SavesWholeCheckpointsAndStopsAfterASignal) {
  torch::manual_seed(3);
  const auto output = std::filesystem::path(::testing::TempDir()) / "trainer_test_stop";
  std::filesystem::remove_all(output);
  Blt model(small_config());
  TrainerParts parts = parts_for(model, two_batches());
  parts.output = output;
  parts.model_to_save =
      rest_by([](const std::filesystem::path& folder) { std::ofstream(folder / "model") << "whole"; });
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
  std::vector<at::Tensor> then;
  parts.model_to_save = [&] {
    then.push_back(model->lm_head->weight.detach().clone());
    return ModelToSave{.tensors = {{"head", model->lm_head->weight}},
                       .write_rest = [&, wanted = then.size() == 1 ? 4 : 0](const std::filesystem::path&) {
                         for (int i = 0; i < 3000 && steps < wanted; ++i)
                           std::this_thread::sleep_for(std::chrono::milliseconds(10));
                         EXPECT_GE(steps, wanted) << "the training waited for the checkpoint";
                       }};
  };
  parts.loss = [&](const at::Tensor& logits, const Batch& batch) {
    ++steps;
    return next_id_loss(logits, batch);
  };
  TrainConfig config = quick(5);
  config.checkpoint_every = 2;
  Trainer trainer(config, std::move(parts));
  EXPECT_EQ(trainer.run(), Trainer::Outcome::kFinished);
  ASSERT_EQ(then.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const std::string step = std::vector<std::string>{"2", "4", "5"}[i];
    const SafetensorsFile file(folder / ("run/step_0000000" + step + "/model.safetensors"));
    EXPECT_TRUE(torch::equal(file.tensor("head"), then[i])) << step;
  }
  EXPECT_FALSE(torch::equal(then[0], then[1]));
  // The optimizer's state too is that of its step.
  const SafetensorsFile state(folder / "run/step_00000002/optimizer.safetensors");
  EXPECT_EQ(state.tensor("lm_head.weight.step").item<float>(), 2);
  EXPECT_EQ(StateReader(content_of(folder / "run/step_00000002/trainer_state.json"), "state").integer("step"),
            2);
}

class FailingSaves : public ::testing::Test {
 protected:
  // A trainer whose saves, counted from 1, fail where `fails` says so.
  Trainer trainer(int64_t steps, int64_t tries, const std::function<bool(int)>& fails) {
    TrainerParts parts = parts_for(model_, two_batches());
    parts.output = folder_ / "run";
    parts.model_to_save = rest_by([this, fails](const std::filesystem::path& folder) {
      if (fails(++saves_)) throw Error("the disk is full");
      write_content(folder / "config.json", "{}");
    });
    TrainConfig config = quick(steps);
    config.checkpoint_every = 2;
    config.log_every = 1;
    config.last_save_tries = tries;
    return Trainer(config, std::move(parts));
  }
  bool is_there(const std::string& step) const {
    return std::filesystem::exists(folder_ / ("run/step_0000000" + step + "/config.json"));
  }

  const blt_test::TemporaryFolder folder_;
  Blt model_{small_config()};
  int saves_ = 0;
};

TEST_F(FailingSaves, AreWarnedAboutAndCountedAndTheTrainingGoesOn) {
  // A step after the next save says it at the latest: that save waits for the one before.
  Trainer failing = trainer(9, 1, [](int save) { return save == 2 || save == 3; });
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(failing.run(), Trainer::Outcome::kFinished);
  const std::string said = ::testing::internal::GetCapturedStderr();
  for (const char* step : {"4", "6"}) {
    const std::string warning = std::string("step ") + step +
                                ": the checkpoint was not saved: the disk is full; the last whole one is " +
                                (folder_ / "run/step_00000002").string() +
                                "; the training goes on, and the next one is due at step ";
    EXPECT_NE(said.find(warning), std::string::npos) << said;
    EXPECT_FALSE(is_there(step));
  }
  EXPECT_TRUE(is_there("2") && is_there("8") && is_there("9"));
  EXPECT_EQ(failing.failed_saves(), 2);
  EXPECT_EQ(std::filesystem::read_symlink(folder_ / "run/latest"), "step_00000009");
  EXPECT_NE(content_of(folder_ / "run/metrics.jsonl").find("\"failed_saves\":2"), std::string::npos);
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "run"))
    EXPECT_NE(entry.path().filename().string()[0], '.') << entry.path();
}

TEST_F(FailingSaves, OfTheLastStepAreTriedAgain) {
  Trainer failing = trainer(4, 3, [](int save) { return save == 2; });
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(failing.run(), Trainer::Outcome::kFinished);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("step_00000002; it is tried again in 1 s"), std::string::npos) << said;
  EXPECT_TRUE(is_there("4"));
}

TEST_F(FailingSaves, OfTheLastStepEndTheRunWhereTheyGoOnFailing) {
  Trainer failing = trainer(5, 2, [](int save) { return save > 2; });
  EXPECT_MESSAGE(failing.run(),
                 "step 5: the checkpoint was not saved: the disk is full; the last whole one is " +
                     (folder_ / "run/step_00000004").string());
  EXPECT_EQ(saves_, 4);
  EXPECT_TRUE(is_there("4"));
  EXPECT_FALSE(is_there("5"));
}

// What is newer than the checkpoint that it went on from was damaged, and passed over.
TEST_F(FailingSaves, NameTheCheckpointThatTheRunWentOnFrom) {
  trainer(4, 1, [](int) { return false; }).run();
  std::filesystem::remove(folder_ / "run/step_00000004/manifest.json");
  Trainer failing = trainer(3, 1, [](int) { return true; });
  failing.resume(folder_ / "run/step_00000002");
  EXPECT_MESSAGE(failing.run(),
                 "step 3: the checkpoint was not saved: the disk is full; the last whole one is " +
                     (folder_ / "run/step_00000002").string());
}

TEST_F(FailingSaves, WhereTheFolderIsGoneForAWhile) {
  int step = 0;
  const auto away = folder_ / "away";
  Trainer failing = trainer(6, 1, [](int) { return false; });
  // Not before the first checkpoint is there, and back before the last one is due.
  while (failing.step() < 6) {
    failing.train_step();
    step = static_cast<int>(failing.step());
    if (step == 2) {
      std::filesystem::create_directories(folder_ / "run");
      EXPECT_TRUE(failing.save());
      failing.finish_saving();
      std::filesystem::rename(folder_ / "run", away);
    }
    if (step == 4) {
      EXPECT_TRUE(failing.save());
      EXPECT_MESSAGE(failing.finish_saving(),
                     "step 4: the checkpoint was not saved: " + (folder_ / "run/step_00000004").string() +
                         ": cannot write: No such file or directory; the last whole one, " +
                         (folder_ / "run/step_00000002").string() + ", is not there now");
      std::filesystem::rename(away, folder_ / "run");
    }
  }
  EXPECT_TRUE(failing.save());
  failing.finish_saving();
  EXPECT_TRUE(is_there("2") && is_there("6"));
  EXPECT_EQ(failing.failed_saves(), 1);
}

TEST(Trainer, KeepsCheckpointsByNumberAndByStep) {
  const blt_test::TemporaryFolder folder;
  Blt model(small_config());
  TrainerParts parts = parts_for(model, two_batches());
  parts.output = folder / "run";
  parts.model_to_save = rest_by([](const std::filesystem::path&) {});
  TrainConfig config = quick(9);
  config.checkpoint_every = 1;
  config.keep_checkpoints = 2;
  config.keep_every = 3;
  Trainer(config, std::move(parts)).run();
  std::vector<std::string> kept;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "run"))
    if (entry.is_directory() && !entry.is_symlink()) kept.push_back(entry.path().filename().string());
  std::sort(kept.begin(), kept.end());
  EXPECT_EQ(kept,
            (std::vector<std::string>{"step_00000003", "step_00000006", "step_00000008", "step_00000009"}));
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
