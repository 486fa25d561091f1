#include "train/same_run.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/config_io.h"
#include "blt/base/files.h"
#include "blt/data/state.h"
#include "blt/io/model_content.h"
#include "message.h"
#include "temporary_folder.h"

namespace blt {
namespace {

// A device's products round by the number of rows that are computed at once; the CPU's do not.
TEST(SameRun, BytesThatTheEntropyModelReadsAtOnceMayChangeOnTheCpuAlone) {
  const blt_test::TemporaryFolder folder;
  EntropyModelConfig shape;
  shape.dim = 16;
  shape.layers = 1;
  shape.heads = 2;
  write_file(folder / "config.json", model_content(EntropyModel(shape)).config);
  RunSettings settings;
  settings.data.sources.resize(1);
  settings.data.sources[0].paths = {"text.txt"};
  for (const char* device : {"cpu", "cuda", "cuda:1"}) {
    settings.data.entropy_device = device;
    settings.data.entropy_batch_bytes = 16384;
    write_file(folder / "run.yaml", to_yaml(settings));
    RunSettings now = load_config<RunSettings>(folder / "run.yaml");
    require_same_run(folder.path(), now, shape);
    now.data.entropy_batch_bytes = 8192;
    if (settings.data.entropy_device == "cpu")
      require_same_run(folder.path(), now, shape);
    else
      EXPECT_MESSAGE(require_same_run(folder.path(), now, shape),
                     "data.entropy_batch_bytes was 16384, is 8192");
  }
}

// What `changes` says of a run that goes on with `now` from a checkpoint of so many ranks with `then`.
using Changes = std::function<std::string(const std::filesystem::path& checkpoint, const RunSettings& now)>;
std::string said_after(int64_t ranks_then, const TrainConfig& then, const TrainConfig& now,
                       const DataConfig& data, const Changes& changes) {
  const blt_test::TemporaryFolder folder;
  RunSettings settings;
  settings.data = data;
  settings.data.sources.resize(1);
  settings.data.sources[0].paths = {"text.txt"};
  settings.train = then;
  write_file(folder / "run.yaml", to_yaml(settings));
  StateWriter state;
  state.put("step", 100);
  state.put("ranks", ranks_then);
  write_file(folder / "trainer_state.json", state.json());
  settings.train = now;
  std::string said = changes(folder.path(), settings);
  if (const size_t at = said.find(folder.path().string()); at != said.npos)
    said.replace(at, folder.path().string().size(), "FOLDER");
  return said;
}

std::string change_after(int64_t ranks_then, const TrainConfig& then, int64_t ranks, const TrainConfig& now,
                         const DataConfig& data = {}) {
  return said_after(ranks_then, then, now, data, [&](const auto& checkpoint, const RunSettings& settings) {
    return change_of_step_size(checkpoint, settings, ranks, "train");
  });
}

TrainConfig accumulating(int64_t batches, std::vector<AccumulateFrom> later = {}) {
  TrainConfig config;
  config.accumulate = batches;
  config.accumulate_from = std::move(later);
  return config;
}

TEST(ChangeOfStepSize, NamesBothSizesAndWhatKeepsIt) {
  EXPECT_EQ(
      change_after(4, accumulating(2), 2, accumulating(2)),
      "from step 101 on a step is of another size than in the run of FOLDER: 2 ranks x 2 batches x 16384 "
      "bytes = 65536 bytes, where it was 4 ranks x 2 batches x 16384 bytes = 131072 bytes, and the "
      "learning rate was chosen for that; train.accumulate=4 keeps the size");
  EXPECT_NE(change_after(4, accumulating(2), 3, accumulating(2))
                .find("; with 3 ranks no train.accumulate keeps the size (2 and 3 are nearest); a number of "
                      "ranks that divides 8 does"),
            std::string::npos);
  EXPECT_NE(change_after(2, accumulating(1), 3, accumulating(1)).find("(1 is nearest)"), std::string::npos);
  EXPECT_NE(change_after(1, accumulating(1), 1, accumulating(3))
                .find(": 1 rank x 3 batches x 16384 bytes = 49152 bytes, where it was 1 rank x 1 batch x "),
            std::string::npos);
  DataConfig data;
  data.batch_patches = 100;
  EXPECT_NE(change_after(2, accumulating(1), 1, accumulating(1), data)
                .find("1 rank x 1 batch x 100 patches = 100 patches, where it was 2 ranks"),
            std::string::npos);
}

TEST(ChangeOfStepSize, IsNoneWhereRanksAndBatchesMakeTheSame) {
  EXPECT_EQ(change_after(4, accumulating(2), 4, accumulating(2)), "");
  EXPECT_EQ(change_after(4, accumulating(2), 8, accumulating(1)), "");
  EXPECT_EQ(change_after(4, accumulating(2), 1, accumulating(8)), "");
  // What steps before the checkpoint were does not count, nor what comes after the last one.
  EXPECT_EQ(change_after(2, accumulating(1, {{50, 4}}), 1, accumulating(8)), "");
  TrainConfig short_one = accumulating(2, {{500, 7}});
  short_one.steps = 400;
  EXPECT_EQ(change_after(2, accumulating(1), 1, short_one), "");
}

TEST(ChangeOfStepSize, LooksAtLaterStepsToo) {
  const std::string said = change_after(2, accumulating(1, {{500, 4}}), 1, accumulating(2, {{500, 4}}));
  EXPECT_NE(said.find("from step 501 on"), std::string::npos) << said;
  EXPECT_NE(said.find("; train.accumulate_from: batches=8 keeps the size"), std::string::npos) << said;
  EXPECT_EQ(change_after(2, accumulating(1, {{500, 4}}), 1, accumulating(2, {{500, 8}})), "");
}

TrainConfig scheduled(int64_t steps, ScheduleConfig schedule) {
  TrainConfig config;
  config.steps = steps;
  config.schedule = schedule;
  return config;
}

std::string change_of_rate(const TrainConfig& then, const TrainConfig& now) {
  return said_after(1, then, now, {}, [&](const auto& checkpoint, const RunSettings& settings) {
    return change_of_learning_rate(checkpoint, settings, "train");
  });
}

TEST(ChangeOfLearningRate, IsToldWhereTheScheduleJumps) {
  const CosineSchedule cosine{.warmup = 0};
  EXPECT_EQ(change_of_rate(scheduled(100, cosine), scheduled(201, cosine)),
            "step 101 has 0.496 of the peak learning rate, where the run of FOLDER came to 0: train.schedule "
            "is over 201 steps, and was over 100; a schedule of kind wsd (before its decay) or constant can "
            "be lengthened without a jump");
  EXPECT_NE(change_of_rate(scheduled(1000, cosine), scheduled(1000, ConstantSchedule())), "");
}

TEST(ChangeOfLearningRate, IsNoneWhereItGoesOn) {
  const CosineSchedule cosine{.warmup = 0};
  EXPECT_EQ(change_of_rate(scheduled(1000, cosine), scheduled(1000, cosine)), "");
  EXPECT_EQ(change_of_rate(scheduled(1000, cosine), scheduled(100, cosine)), "") << "no step is left";
  EXPECT_EQ(
      change_of_rate(scheduled(200, WsdSchedule{.warmup = 0}), scheduled(900, WsdSchedule{.warmup = 0})), "");
  TrainConfig other = scheduled(1000, cosine);
  other.optimizer.learning_rate *= 2;  // which its user knows of
  EXPECT_EQ(change_of_rate(scheduled(1000, cosine), other), "");
}

}  // namespace
}  // namespace blt
