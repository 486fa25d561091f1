// A step that one rank breaks is skipped by all alike, and a limit ends them all.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/train/trainer.h"
#include "file_content.h"
#include "message.h"
#include "temporary_folder.h"
#include "train/divided_training.h"
#include "train/ranks.h"
#include "train/small_model.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;
using nlohmann::json;
using testing::Division;
using testing::divisions;
using testing::in_group;
using testing::name_of;
using testing::quick;
using testing::RepeatBatches;
using testing::sequence;
using testing::small_config;

constexpr int64_t kRanks = 3;

// What a rank does to its loss: rank, and calls of the loss so far on that rank, from 1.
using Damage = std::function<LossValue(LossValue value, const at::Tensor& logits, int64_t rank, int call)>;

LossValue no_number(LossValue value) {
  value.sum = value.sum * std::numeric_limits<double>::quiet_NaN();
  return value;
}
// The loss is what it was, and its gradient is no number.
LossValue no_gradient(LossValue value, const at::Tensor& logits) {
  value.sum = value.sum + (logits * 0).sqrt().sum();
  return value;
}

struct Ended {
  std::string error;  // what run() threw; empty: nothing
  int64_t steps = 0, skipped = 0;
  std::vector<at::Tensor> parameters;
};

// Each rank reads two batches of two documents: `line 10 r` and the next ones.
std::vector<Ended> train(const TrainConfig& config, const Division& division, const Damage& damage,
                         const std::filesystem::path& output = {}) {
  std::vector<Blt> models;
  for (int64_t rank = 0; rank < kRanks; ++rank) {
    torch::manual_seed(3);
    models.emplace_back(small_config());
  }
  std::vector<Ended> ended(static_cast<size_t>(kRanks));
  in_group(kRanks, [&](const std::shared_ptr<Group>& group) {
    const int64_t rank = group->rank();
    const Blt& model = models[static_cast<size_t>(rank)];
    std::vector<Batch> batches;
    for (int64_t b = 0; b < 2; ++b) {
      std::vector<PatchedSequence> lines;
      for (int64_t i = 0; i < 2; ++i) {
        lines.push_back(sequence(std::string("abcabc xyxy the quick").substr(static_cast<size_t>(rank + i))));
        lines.back().place = {.source = 0, .file = 0, .line = 10 * rank + 2 * b + i};
      }
      batches.push_back(Batch::pack(lines));
    }
    TrainerParts parts;
    parts.model = trainable(model);
    parts.train = std::make_unique<RepeatBatches>(std::move(batches));
    parts.group = group;
    parts.parallel = testing::divided(division);
    parts.output = output;
    parts.name_text = [](const TextPlace& place) { return "line " + std::to_string(place.line); };
    parts.model_to_save = [] {
      return ModelToSave{.tensors = {}, .write_rest = [](const std::filesystem::path&) {}};
    };
    parts.loss = [&, rank, calls = 0](const at::Tensor& logits, const Batch& batch) mutable {
      return damage(next_id_loss(logits, batch), logits, rank, ++calls);
    };
    Ended& own = ended[static_cast<size_t>(rank)];
    Trainer trainer(config, std::move(parts));
    own.error = message_of([&] { trainer.run(); });
    own.steps = trainer.step();
    own.skipped = trainer.skipped();
    trainer.parallel().make_whole();
    for (const at::Tensor& parameter : model->parameters())
      own.parameters.push_back(parameter.detach().clone());
  });
  return ended;
}

void expect_alike(const std::vector<Ended>& ranks, const std::string& what) {
  for (const Ended& rank : ranks) {
    EXPECT_EQ(rank.error, ranks[0].error) << what;
    EXPECT_EQ(rank.steps, ranks[0].steps) << what;
    EXPECT_EQ(rank.skipped, ranks[0].skipped) << what;
    for (size_t i = 0; i < rank.parameters.size(); ++i)
      EXPECT_TRUE(torch::equal(rank.parameters[i], ranks[0].parameters[i])) << what << " " << i;
  }
}

// Rows of metrics.jsonl about steps that were skipped.
std::vector<json> skips_in(const std::filesystem::path& output) {
  std::vector<json> rows;
  std::istringstream lines(content_of(output / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);)
    if (const json row = json::parse(line); row.contains("skipped")) rows.push_back(row);
  return rows;
}

const char* const kNothing = "(nothing was thrown)";

TEST(SkippedSteps, ThatOneRankBreaksChangeNothingOnAny) {
  at::set_num_threads(1);
  TrainConfig config = quick(4);
  config.accumulate = 2;
  for (const Division& division : divisions()) {
    TrainConfig shorter = config;
    shorter.steps = 3;
    const auto intact = [](LossValue value, const at::Tensor&, int64_t, int) { return value; };
    const std::vector<Ended> expected = train(shorter, division, intact);
    for (const bool in_the_loss : {true, false}) {
      const std::string what = name_of(division) + (in_the_loss ? ", loss" : ", gradient");
      const TemporaryFolder folder;
      ::testing::internal::CaptureStderr();
      const std::vector<Ended> ranks = train(
          config, division,
          [&](LossValue value, const at::Tensor& logits, int64_t rank, int call) {
            if (rank != 1 || call != 3) return value;  // its first batch of the second step
            return in_the_loss ? no_number(std::move(value)) : no_gradient(std::move(value), logits);
          },
          folder.path());
      const std::string said = ::testing::internal::GetCapturedStderr();
      expect_alike(ranks, what);
      EXPECT_EQ(ranks[0].error, kNothing) << what;
      EXPECT_EQ(ranks[0].skipped, 1) << what;
      for (size_t i = 0; i < expected[0].parameters.size(); ++i)
        EXPECT_TRUE(torch::equal(ranks[0].parameters[i], expected[0].parameters[i])) << what << " " << i;
      // Where the loss says which batch it was, its text; else that of all ranks.
      const std::vector<json> skips = skips_in(folder.path());
      ASSERT_EQ(skips.size(), 1u) << what;
      const json row = {{"step", 2}, {"skipped", "nonfinite"}};
      for (const auto& [key, value] : row.items()) EXPECT_EQ(skips[0][key], value) << what;
      const std::vector<std::string> texts = skips[0]["documents"];
      if (in_the_loss) {
        EXPECT_EQ(texts, (std::vector<std::string>{"line 10", "line 11"})) << what;
      } else {
        EXPECT_EQ(texts.size(), 12u) << what;
        for (const char* text : {"line 0", "line 10", "line 23"})
          EXPECT_NE(std::find(texts.begin(), texts.end(), text), texts.end()) << what << " " << text;
      }
      const std::string warning = std::string("step 2: skipped: the ") + (in_the_loss ? "loss" : "gradient");
      EXPECT_NE(said.find(warning), std::string::npos) << said;
      EXPECT_EQ(said.find(warning), said.rfind(warning)) << "one rank says it: " << said;
    }
  }
}

// The ranks that break steps differ; all of them count together.
TEST(SkippedSteps, EndAllRanksAtTheLimitWithOneMessage) {
  at::set_num_threads(1);
  for (const Division& division : divisions()) {
    const std::string what = name_of(division);
    const TemporaryFolder folder;
    TrainConfig config = quick(20);
    config.skip_limit = 3;
    ::testing::internal::CaptureStderr();
    const std::vector<Ended> ranks = train(
        config, division,
        [](LossValue value, const at::Tensor&, int64_t rank, int call) {
          return call == 2 || (call >= 4 && rank == call % kRanks) ? no_number(std::move(value)) : value;
        },
        folder.path());
    ::testing::internal::GetCapturedStderr();
    expect_alike(ranks, what);
    EXPECT_NE(ranks[0].error.find("step 6: 3 steps in a row were skipped (train.skip_limit), in this one "
                                  "because the loss is not finite (nan); it read line 2, line 3"),
              std::string::npos)
        << what << ": " << ranks[0].error;
    EXPECT_EQ(ranks[0].steps, 6) << what;
    EXPECT_EQ(ranks[0].skipped, 4) << what;
    EXPECT_EQ(std::filesystem::read_symlink(folder / "latest"), "step_00000006") << what;
  }
}

TEST(SkippedSteps, StopAllRanksAtOnceWhereTheConfigSaysSo) {
  at::set_num_threads(1);
  TrainConfig config = quick(20);
  config.on_nonfinite = OnNonfinite::kStop;
  for (const Division& division : divisions()) {
    ::testing::internal::CaptureStderr();
    const std::vector<Ended> ranks =
        train(config, division, [](LossValue value, const at::Tensor& logits, int64_t rank, int call) {
          return rank == 2 && call == 3 ? no_gradient(std::move(value), logits) : value;
        });
    ::testing::internal::GetCapturedStderr();
    expect_alike(ranks, name_of(division));
    EXPECT_NE(ranks[0].error.find("step 3: the gradient is not finite"), std::string::npos) << ranks[0].error;
    EXPECT_EQ(ranks[0].steps, 3);
  }
}

// A loss that is far off on one rank is so in the sum of all, which all ranks watch.
TEST(SkippedSteps, ThatAreSpikesOfOneRankAreSpikesOfAll) {
  at::set_num_threads(1);
  const auto spike = [](LossValue value, const at::Tensor&, int64_t rank, int call) {
    if (rank == 1 && call == 15) value.sum = value.sum * 9;
    return value;
  };
  for (const Division& division : {divisions().front(), divisions().back()})
    for (const OnSpike action : {OnSpike::kSkip, OnSpike::kStop}) {
      const TemporaryFolder folder;
      TrainConfig config = quick(18);
      config.optimizer.learning_rate = 1e-4;
      config.spike = {.action = action, .deviations = 6, .window = 10};
      ::testing::internal::CaptureStderr();
      const std::vector<Ended> ranks = train(config, division, spike, folder.path());
      ::testing::internal::GetCapturedStderr();
      expect_alike(ranks, name_of(division));
      EXPECT_EQ(ranks[0].skipped, 1);
      const bool stops = action == OnSpike::kStop;
      EXPECT_EQ(ranks[0].steps, stops ? 15 : 18);
      EXPECT_EQ(ranks[0].error.find("step 15: the loss ") != std::string::npos, stops) << ranks[0].error;
      EXPECT_EQ(ranks[0].error.find("is far above those before") != std::string::npos, stops)
          << ranks[0].error;
      const std::vector<json> skips = skips_in(folder.path());
      ASSERT_EQ(skips.size(), 1u);
      EXPECT_EQ(skips[0]["skipped"], "spike");
      EXPECT_EQ(skips[0]["documents"].size(), 6u) << "of all ranks";
    }
}

}  // namespace
}  // namespace blt
