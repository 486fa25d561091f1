// Checkpoints of several ranks where a disk does not do what it should.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "blt/train/trainer.h"
#include "message.h"
#include "temporary_folder.h"
#include "train/checkpoint.h"
#include "train/ranks.h"
#include "train/small_model.h"

namespace blt {
namespace {

namespace fs = std::filesystem;
using testing::quick;
using testing::RepeatBatches;
using testing::sequence;
using testing::small_config;

using WriteRest = std::function<void(const fs::path&)>;

// Four steps, and checkpoints of two of them.
Trainer trainer(std::shared_ptr<Group> group, const fs::path& output, double timeout_s,
                const WriteRest& rest) {
  TrainerParts parts;
  {
    static std::mutex one_at_a_time;  // the random numbers are everybody's
    const std::lock_guard lock(one_at_a_time);
    torch::manual_seed(3);
    parts.model = trainable(Blt(small_config()));
  }
  parts.train = std::make_unique<RepeatBatches>(std::vector<Batch>{Batch::pack({sequence("abcabcabcabc")})});
  parts.output = output;
  parts.group = std::move(group);
  parts.parallel.timeout_s = timeout_s;
  parts.model_to_save = [rest] { return ModelToSave{.tensors = {}, .write_rest = rest}; };
  TrainConfig config = quick(4);
  config.checkpoint_every = 2;
  config.last_save_tries = 1;
  return Trainer(config, std::move(parts));
}

// It does not take the time of a transfer until the first rank knows, nor is the reason lost.
TEST(FailingRanks, WithAnotherFolderAreNamedWithTheReason) {
  const blt_test::TemporaryFolder folder;
  const auto start = std::chrono::steady_clock::now();
  ::testing::internal::CaptureStderr();
  testing::in_group(3, [&](const std::shared_ptr<Group>& group) {
    const fs::path output = folder / (group->rank() == 0 ? "run" : "elsewhere");
    Trainer training = trainer(group, output, 60, [](const fs::path&) {});
    EXPECT_MESSAGE(training.run(), "step 4: the checkpoint was not saved: rank ");
    EXPECT_EQ(training.failed_saves(), 2);
  });
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  const auto find = [&](const std::string& text) {
    EXPECT_NE(said.find(text), std::string::npos) << text << "\n" << said;
  };
  find("step 2: the checkpoint was not saved: rank ");
  find("is the output folder shared by all ranks?; there is no earlier one; the training goes on");
  find("the last checkpoint: rank ");  // the other one
  find("/.rank_1: cannot write: No such file or directory; is the");
  find("/.rank_2: cannot write: No such file or directory; is the");
}

// Longer than a transfer may take.
TEST(FailingRanks, WaitForADiskThatIsSlow) {
  constexpr double kTransfer = 3;
  const blt_test::TemporaryFolder folder;
  std::atomic<bool> written{false};
  const auto errors = testing::on_ranks(2, [&](const RankPlace& place) {
    Trainer training =
        trainer(join(place, {.start_s = 60, .transfer_s = kTransfer}), folder / "run", kTransfer,
                [&](const fs::path&) {
                  if (!written.exchange(true))
                    std::this_thread::sleep_for(std::chrono::duration<double>(2.5 * kTransfer));
                });
    EXPECT_EQ(training.run(), Trainer::Outcome::kFinished);
    EXPECT_EQ(training.failed_saves(), 0);
  });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
  EXPECT_TRUE(fs::exists(folder / "run/step_00000002") && fs::exists(folder / "run/step_00000004"));
}

}  // namespace
}  // namespace blt
