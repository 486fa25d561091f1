// Several ranks go on bit for bit, whatever they keep of the parameters.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "file_content.h"
#include "temporary_folder.h"
#include "train/checkpoint.h"
#include "train/ranks.h"
#include "train/resumable_training.h"

namespace blt {
namespace {

using testing::Division;
using testing::resumable_training;

struct Kept {
  Division division;
  Compute compute;
  bool muon = false, ema = false;
};

class ResumedRanks : public ::testing::TestWithParam<Kept> {};

std::string name_of(const ::testing::TestParamInfo<Kept>& of) {
  const Kept& kept = of.param;
  return std::string(name(kept.division.sharding)) + "_" + std::string(name(kept.compute)) +
         (kept.division.has_tables() ? "_tables" : "") + (kept.muon ? "_muon" : "") +
         (kept.ema ? "_ema" : "");
}

TEST_P(ResumedRanks, GoOnBitForBit) {
  at::set_num_threads(1);
  constexpr int64_t kCut = 3, kSteps = 6;
  const Kept& kept = GetParam();
  TrainConfig config = testing::training(/*accumulate=*/2, kept.compute, kSteps);
  if (kept.muon) config.optimizer.matrices = RuleKind::kMuon;
  if (kept.ema) config.ema = EmaConfig{.decay = 0.3, .tables = true};
  config.checkpoint_every = kCut;
  const blt_test::TemporaryFolder folder;
  testing::in_group(2, [&](const std::shared_ptr<Group>& group) {
    const auto run = [&](const std::string& output, const std::filesystem::path& from) {
      const auto training = resumable_training(group, config, kept.division, folder / output, from);
      std::vector<double> losses;
      while (training.trainer->step() < kSteps) {
        losses.push_back(training.trainer->train_step().loss.item<double>());
        if (training.trainer->step() % kCut == 0) training.trainer->save();
      }
      training.trainer->finish_saving();
      return losses;
    };
    const std::vector<double> whole = run("whole", {});
    const std::vector<double> rest = run("rest", folder / "whole" / checkpoint_name(kCut));
    EXPECT_EQ(rest, std::vector<double>(whole.begin() + kCut, whole.end()));
    EXPECT_NE(whole.front(), whole.back());
  });
  const auto whole = folder / "whole" / checkpoint_name(kSteps),
             rest = folder / "rest" / checkpoint_name(kSteps);
  std::vector<std::string> files = {kModelFile, kOptimizerFile, kTrainerStateFile};
  if (kept.ema) files.push_back(std::string(kEmaFolder) + "/model.safetensors");
  for (const std::string& file : files) {
    EXPECT_FALSE(content_of(whole / file).empty()) << file;
    EXPECT_TRUE(content_of(whole / file) == content_of(rest / file)) << file;
  }
}

constexpr TablePlacement kWhole = TablePlacement::kReplicated, kSharded = TablePlacement::kSharded;
INSTANTIATE_TEST_SUITE_P(, ResumedRanks,
                         ::testing::Values(Kept{{Sharding::kNone, kWhole}, Compute::kBfloat16, true, true},
                                           Kept{{Sharding::kZero1, kWhole}, Compute::kBfloat16, false, true},
                                           Kept{{Sharding::kZero1, kSharded}, Compute::kFloat32, true, false},
                                           Kept{{Sharding::kZero1, kWhole}, Compute::kBfloat16, true, false},
                                           Kept{{Sharding::kZero3, kWhole}, Compute::kBfloat16, false, false},
                                           Kept{{Sharding::kZero3, kWhole}, Compute::kFloat32, true, true},
                                           Kept{
                                               {Sharding::kZero3, kSharded}, Compute::kBfloat16, true, true}),
                         name_of);

}  // namespace
}  // namespace blt
