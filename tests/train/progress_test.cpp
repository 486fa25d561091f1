// What a run says of its speed, its memory and its waiting, and validations that it is asked to leave.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <chrono>
#include <cmath>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "blt/base/signals.h"
#include "blt/model/report.h"
#include "file_content.h"
#include "temporary_folder.h"
#include "train/ranks.h"
#include "train/run_cost.h"
#include "train/small_model.h"

namespace blt {
namespace {

using testing::in_group;
using testing::quick;
using testing::RepeatBatches;
using testing::sequence;
using testing::small_config;

Batch one_batch() { return Batch::pack({sequence("abcabcabcabcabc"), sequence("xyxyxyxyxy")}); }

// So many batches, `before` each of them.
class Batches : public Stage<Batch> {
 public:
  Batches(int64_t count, std::function<void(int64_t)> before) : count_(count), before_(std::move(before)) {}
  std::optional<Batch> next() override {
    if (next_ == count_) return std::nullopt;
    before_(next_++);
    return one_batch();
  }
  void save(StateWriter&) const override {}
  void load(const StateReader&) override {}

 private:
  int64_t count_, next_ = 0;
  std::function<void(int64_t)> before_;
};

std::function<void(int64_t)> sleeps(int milliseconds) {
  return [milliseconds](int64_t) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); };
}

constexpr int64_t kEndless = std::numeric_limits<int64_t>::max();

class ProgressTest : public ::testing::Test {
 protected:
  TrainerParts parts(std::unique_ptr<Stage<Batch>> train) {
    torch::manual_seed(3);
    Blt model(small_config());
    TrainerParts parts;
    parts.model = trainable(model);
    parts.train = std::move(train);
    parts.output = folder_ / "run";
    parts.model_to_save = [] { return ModelToSave{.tensors = {}, .write_rest = [](const auto&) {}}; };
    return parts;
  }
  // The rows of metrics.jsonl that have this.
  std::vector<nlohmann::json> rows_with(const std::string& name) const {
    std::vector<nlohmann::json> rows;
    std::istringstream lines(content_of(folder_ / "run/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      rows.push_back(nlohmann::json::parse(line));
      if (!rows.back().contains(name)) rows.pop_back();
    }
    return rows;
  }

  blt_test::TemporaryFolder folder_;
};

TEST_F(ProgressTest, AValidationIsNoPartOfTheStepsAroundIt) {
  TrainConfig config = quick(20);
  config.log_every = 10;
  config.eval_every = 9;
  TrainerParts own = parts(std::make_unique<Batches>(kEndless, sleeps(10)));
  own.valid = [] { return std::make_unique<Batches>(1, sleeps(300)); };
  own.metrics = [] { return std::vector<std::pair<std::string, double>>{{"wait_s", 0.1}}; };
  EXPECT_EQ(Trainer(config, std::move(own)).run(), Trainer::Outcome::kFinished);
  const auto rows = rows_with("bytes_per_s");
  ASSERT_EQ(rows.size(), 2U);
  const auto bytes = static_cast<double>(one_batch().num_byte_targets);
  for (const auto& row : rows) {
    EXPECT_EQ(row["step_bytes"], bytes);
    // Ten steps take a tenth of a second at least, whatever was validated between them.
    EXPECT_LE(row["bytes_per_s"], bytes / 0.010) << row;
    EXPECT_LE(row["wait_share"], 1.0) << row;
  }
}

TEST_F(ProgressTest, AStopDuringAValidationSavesAndLeaves) {
  TrainConfig config = quick(100);
  config.eval_every = 3;
  config.log_every = 2;
  TrainerParts own = parts(std::make_unique<RepeatBatches>(std::vector<Batch>{one_batch()}));
  own.valid = [] {
    return std::make_unique<Batches>(kEndless, [](int64_t number) {
      if (number == 2) request_stop();
    });
  };
  Trainer trainer(config, std::move(own));
  EXPECT_EQ(trainer.run(), Trainer::Outcome::kStopped);
  clear_stop_request();
  EXPECT_EQ(trainer.step(), 3);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "run/step_00000003"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run/best")) << "there is no number to compare";
  EXPECT_TRUE(rows_with("valid_bits_per_byte").empty());
  EXPECT_EQ(rows_with("loss").back()["step"], 3) << "the last step of a run is always shown";
}

TEST_F(ProgressTest, ShowsTheStepThatAStopEnds) {
  TrainConfig config = quick(100);
  config.log_every = 2;
  TrainerParts own = parts(std::make_unique<RepeatBatches>(std::vector<Batch>{one_batch()}));
  own.loss = [step = 0](const at::Tensor& logits, const Batch& batch) mutable {
    if (++step == 5) request_stop();
    return next_id_loss(logits, batch);
  };
  EXPECT_EQ(Trainer(config, std::move(own)).run(), Trainer::Outcome::kStopped);
  clear_stop_request();
  std::vector<int> steps;
  for (const auto& row : rows_with("loss")) steps.push_back(row["step"]);
  EXPECT_EQ(steps, (std::vector<int>{2, 4, 5}));
}

TEST_F(ProgressTest, TheLastSaveIsNoTimeOfTheSteps) {
  TrainConfig config = quick(2);
  config.last_save_tries = 2;  // with a second between them
  TrainerParts own = parts(std::make_unique<RepeatBatches>(std::vector<Batch>{one_batch()}));
  own.model_to_save = [saves = std::make_shared<int>(0)] {
    return ModelToSave{.tensors = {}, .write_rest = [saves](const std::filesystem::path&) {
                         if (++*saves == 1) throw Error("the disk is full");
                       }};
  };
  own.flops = [](const TextCounts&) { return 1e8; };
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(Trainer(config, std::move(own)).run(), Trainer::Outcome::kFinished);
  const std::string said = ::testing::internal::GetCapturedStderr();
  const size_t summary = said.find("2 steps in 00:0");
  ASSERT_NE(summary, said.npos) << said;
  const size_t unit = said.find(" GFLOP/s", summary);
  ASSERT_NE(unit, said.npos) << said;
  const double gflops = std::stod(said.substr(said.rfind(' ', unit - 1) + 1));
  EXPECT_GT(gflops, 0.2) << "two steps of 0.1 GFLOP took less than the second after them\n" << said;
}

TEST_F(ProgressTest, RanksWithOtherNumbersOfBatchesLeaveAValidationTogether) {
  for (const Sharding sharding : {Sharding::kNone, Sharding::kZero3})  // which computes together
    in_group(2, [&](const std::shared_ptr<Group>& group) {
      torch::manual_seed(3);
      Blt model(small_config());
      TrainerParts own;
      own.model = trainable(model);
      own.train = std::make_unique<RepeatBatches>(std::vector<Batch>{one_batch()});
      own.group = group;
      own.parallel.sharding = sharding;
      bool stops = false;
      own.valid = [&] {
        if (!group->is_first()) return std::make_unique<Batches>(1, sleeps(0));
        return std::make_unique<Batches>(stops ? kEndless : 4, [&](int64_t number) {
          if (stops && number == 3) request_stop();
        });
      };
      Trainer trainer(quick(1), std::move(own));
      const std::optional<double> whole = trainer.evaluate();
      ASSERT_TRUE(whole);
      EXPECT_TRUE(std::isfinite(*whole));
      group->barrier("before the stop");
      stops = true;
      EXPECT_FALSE(trainer.evaluate());
      group->barrier("after the stop");
      if (group->is_first()) clear_stop_request();
      group->barrier("no more stop");
      stops = false;
      EXPECT_EQ(trainer.evaluate(), whole) << "the model trains on as before";
    });
}

TEST_F(ProgressTest, FlopsAreThoseOfTheTextThatWasRead) {
  TrainConfig config = quick(2);
  config.log_every = 2;
  TrainerParts own = parts(std::make_unique<RepeatBatches>(std::vector<Batch>{one_batch()}));
  TextCounts seen;
  own.flops = [&](const TextCounts& text) {
    seen = text;
    return 1e6;
  };
  Trainer(config, std::move(own)).run();
  const Batch batch = one_batch();
  EXPECT_EQ(seen.bytes, 2 * batch.num_byte_targets);
  EXPECT_EQ(seen.patches, 2 * batch.patches.count);
  EXPECT_EQ(seen.sequences, 4);
  const auto row = rows_with("flops_per_s").at(0);
  EXPECT_NEAR(row["flops_per_s"].get<double>() / row["bytes_per_s"].get<double>(),
              1e6 / static_cast<double>(seen.bytes), 1e-3);
}

TEST(TrainingFlops, GoByTheMeanLengthsOfPatchesAndSequences) {
  const Blt model(small_config());
  const CostContext context{.sequence_bytes = 99, .mean_patch_bytes = 7};
  const auto flops = training_flops(small_config(), context);
  EXPECT_DOUBLE_EQ(flops({.bytes = 120, .patches = 40, .sequences = 4}),
                   3 * 120 * flops_per_byte(*model, {.sequence_bytes = 30, .mean_patch_bytes = 3}));
  EXPECT_DOUBLE_EQ(flops({.bytes = 120}), 3 * 120 * flops_per_byte(*model, context));
  EXPECT_EQ(flops({}), 0);
  EntropyModelConfig bytes_alone;
  bytes_alone.dim = 16;
  bytes_alone.layers = 1;
  bytes_alone.heads = 2;
  EXPECT_DOUBLE_EQ(
      training_flops(bytes_alone, context)({.bytes = 60, .sequences = 2}),
      3 * 60 * flops_per_byte(*EntropyModel(bytes_alone), {.sequence_bytes = 30, .mean_patch_bytes = 7}));
}

// A rank that waits for its text holds up all; the entropy models of all work for the step.
TEST_F(ProgressTest, SaysTheMostThatARankWaitedAndWhatAllEntropyModelsDid) {
  in_group(2, [&](const std::shared_ptr<Group>& group) {
    TrainConfig config = quick(2);
    config.log_every = 2;
    TrainerParts own;
    {
      static std::mutex one_at_a_time;  // the default generator
      const std::lock_guard lock(one_at_a_time);
      own = parts(std::make_unique<RepeatBatches>(std::vector<Batch>{one_batch()}));
    }
    own.group = group;
    const double waited = group->is_first() ? 1 : 50, flops = group->is_first() ? 1e6 : 2e6;
    own.metrics = [waited] { return std::vector<std::pair<std::string, double>>{{"wait_s", waited}}; };
    own.entropy_flops = [flops] { return flops; };
    Trainer(config, std::move(own)).run();
  });
  const auto row = rows_with("wait_share").at(0);
  EXPECT_NEAR(row["entropy_model_flops_per_s"].get<double>() / row["wait_share"].get<double>(), 2 * 3e6 / 50,
              1);
  EXPECT_GT(row["memory_bytes"], 1 << 20);
}

}  // namespace
}  // namespace blt
