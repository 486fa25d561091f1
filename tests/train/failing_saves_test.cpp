// Checkpoints where a disk does not do what it should.
#include <gtest/gtest.h>
#include <sys/fsuid.h>
#include <torch/torch.h>
#include <unistd.h>

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
#include "train/manifest.h"
#include "train/ranks.h"
#include "train/small_model.h"

namespace blt {
namespace {

namespace fs = std::filesystem;
constexpr uid_t kNobody = 65534;
using testing::quick;
using testing::RepeatBatches;
using testing::sequence;
using testing::small_config;

using WriteRest = std::function<void(const fs::path&)>;

TrainConfig saving_every_second(int64_t steps) {
  TrainConfig config = quick(steps);
  config.checkpoint_every = 2;
  config.last_save_tries = 1;
  return config;
}

// before_step: called in the forward pass of each, from 1, on this rank.
Trainer trainer(const TrainConfig& config, std::shared_ptr<Group> group, const fs::path& output,
                double timeout_s, const WriteRest& rest,
                const std::function<void(int64_t step)>& before_step = {}) {
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
  if (before_step)
    parts.loss = [before_step, step = int64_t{0}](const at::Tensor& logits, const Batch& batch) mutable {
      before_step(++step);
      return next_id_loss(logits, batch);
    };
  return Trainer(config, std::move(parts));
}

// With one: alone, without a transport.
void on_each(int64_t ranks, const std::function<void(const std::shared_ptr<Group>&)>& body) {
  ranks > 1 ? testing::in_group(ranks, body) : body(nullptr);
}

void wait_until(const std::function<bool()>& so) {
  for (int i = 0; i < 3000 && !so(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(so());
}

void expect_said(const std::string& said, const std::string& text, int times = 1) {
  int found = 0;
  for (size_t at = 0; (at = said.find(text, at)) != said.npos; at += text.size()) ++found;
  EXPECT_EQ(found, times) << text << "\n" << said;
}

// It does not take the time of a transfer until the first rank knows, nor is the reason lost.
TEST(FailingRanks, WithAnotherFolderAreNamedWithTheReason) {
  const blt_test::TemporaryFolder folder;
  const auto start = std::chrono::steady_clock::now();
  ::testing::internal::CaptureStderr();
  testing::in_group(3, [&](const std::shared_ptr<Group>& group) {
    const fs::path output = folder / (group->rank() == 0 ? "run" : "elsewhere");
    Trainer training = trainer(saving_every_second(4), group, output, 60, [](const fs::path&) {});
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
        trainer(saving_every_second(4), join(place, {.start_s = 60, .transfer_s = kTransfer}), folder / "run",
                kTransfer, [&](const fs::path&) {
                  if (!written.exchange(true))
                    std::this_thread::sleep_for(std::chrono::duration<double>(2.5 * kTransfer));
                });
    EXPECT_EQ(training.run(), Trainer::Outcome::kFinished);
    EXPECT_EQ(training.failed_saves(), 0);
  });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
  EXPECT_TRUE(fs::exists(folder / "run/step_00000002") && fs::exists(folder / "run/step_00000004"));
}

// A disk that hangs, until it is told to go on.
class HangingDisk {
 public:
  // What writes there. It outlives this: threads hang in it.
  WriteRest write() const {
    return [state = state_](const fs::path&) {
      state->came = true;
      wait_until([&] { return state->goes_on.load(); });
    };
  }
  bool has_come() const { return state_->came; }
  void go_on() { state_->goes_on = true; }

 private:
  struct State {
    std::atomic<bool> came{false}, goes_on{false};
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

bool has_unfinished(const fs::path& output) {
  for (const auto& entry : fs::directory_iterator(output))
    if (entry.path().filename().string().starts_with(".step_")) return true;
  return false;
}

TEST(FailingDisk, LeaveOutTheNextOnesWhileADiskHangs) {
  for (const int64_t ranks : {1, 2}) {
    const blt_test::TemporaryFolder folder;
    HangingDisk disk;
    TrainConfig config = saving_every_second(8);
    config.save_patience_s = 0.1;
    ::testing::internal::CaptureStderr();
    on_each(ranks, [&](const std::shared_ptr<Group>& group) {
      Trainer training = trainer(config, group, folder / "run", 60, disk.write(), [&](int64_t step) {
        if (step == 7) disk.go_on();
      });
      EXPECT_EQ(training.run(), Trainer::Outcome::kFinished);
      EXPECT_EQ(training.failed_saves(), 2);
    });
    const std::string said = ::testing::internal::GetCapturedStderr();
    for (const char* step : {"4", "6"}) {
      expect_said(said,
                  std::string("step ") + step +
                      ": the checkpoint is left out, since that of step 2 has been under way for 0 s (" +
                      (ranks > 1 ? "rank 0: " : "") + "writing " + (folder / "run/.step_00000002").string());
      EXPECT_FALSE(fs::exists(folder / (std::string("run/step_0000000") + step)));
    }
    expect_said(said, "); the training goes on, and the next one is due at step 6");
    EXPECT_TRUE(fs::exists(folder / "run/step_00000002") && fs::exists(folder / "run/step_00000008"));
  }
}

TEST(FailingDisk, EndTheRunWhereADiskHangsForTooLong) {
  for (const int64_t ranks : {1, 2}) {
    const blt_test::TemporaryFolder folder;
    HangingDisk disk;
    TrainConfig config = saving_every_second(4);
    config.save_patience_s = 0.1;
    config.save_timeout_s = 1;
    ::testing::internal::CaptureStderr();
    on_each(ranks, [&](const std::shared_ptr<Group>& group) {
      Trainer training = trainer(config, group, folder / "run", 60, disk.write());
      const std::string error = message_of([&] { training.run(); });
      const std::string expected =
          std::string("step 2: the checkpoint was not saved: it has been under way for 1 s (") +
          (ranks > 1 ? "rank 0: " : "") + "writing " + (folder / "run/.step_00000002").string();
      EXPECT_EQ(error.substr(0, expected.size()), expected);
      const std::string end =
          "), and the run waits no longer than 1 s for it (train.save_timeout_s); there is no earlier one";
      EXPECT_TRUE(error.ends_with(end)) << error;
    });
    ::testing::internal::GetCapturedStderr();
    EXPECT_TRUE(has_unfinished(folder / "run"));
    disk.go_on();  // what was said to be missing does not come later
    wait_until([&] { return !has_unfinished(folder / "run"); });
    EXPECT_FALSE(fs::exists(folder / "run/step_00000002"));
  }
}

// What the last save left out, finish_saving() makes up for.
TEST(FailingDisk, OfTheLastStepWaitForADiskThatGoesOn) {
  const blt_test::TemporaryFolder folder;
  HangingDisk disk;
  TrainConfig config = saving_every_second(4);
  config.save_patience_s = 0;
  Trainer training = trainer(config, nullptr, folder / "run", 60, disk.write());
  ::testing::internal::CaptureStderr();
  std::thread later([&] {
    wait_until([&] { return disk.has_come() && training.step() == 4; });
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    disk.go_on();
  });
  EXPECT_EQ(training.run(), Trainer::Outcome::kFinished);
  later.join();
  expect_said(::testing::internal::GetCapturedStderr(), "step 4: the checkpoint is left out");
  EXPECT_TRUE(fs::exists(folder / "run/step_00000002") && fs::exists(folder / "run/step_00000004"));
}

// spoil, mend: what happens to the folder between the first and the second checkpoint, and before the third.
void expect_only_the_second_missing(int64_t ranks, const fs::path& output, const std::function<void()>& spoil,
                                    const std::function<void()>& mend, const std::string& reason) {
  ::testing::internal::CaptureStderr();
  on_each(ranks, [&](const std::shared_ptr<Group>& group) {
    setfsuid(getuid() == 0 ? kNobody : getuid());  // this thread, and those that it makes: nothing binds root
    const auto before_step = [&](int64_t step) {
      if (group && !group->is_first()) return;
      if (step == 3) {
        wait_until([&] { return fs::exists(output / "latest") && !has_unfinished(output); });
        spoil();
      }
      if (step == 5) mend();
    };
    Trainer training = trainer(
        saving_every_second(6), group, output, 60, [](const fs::path&) {}, before_step);
    EXPECT_EQ(training.run(), Trainer::Outcome::kFinished);
    EXPECT_EQ(training.failed_saves(), 1);
    setfsuid(getuid());
  });
  expect_said(::testing::internal::GetCapturedStderr(),
              "step 4: the checkpoint was not saved: " + (output / "step_00000004").string() +
                  ": cannot write: " + reason);
  const auto alone = make_alone_group();
  for (const char* step : {"step_00000002", "step_00000006"})
    EXPECT_NO_THROW(check_checkpoint(output / step, *alone)) << step;
  EXPECT_FALSE(fs::exists(output / "step_00000004"));
  EXPECT_EQ(fs::read_symlink(output / "latest"), "step_00000006");
}

TEST(FailingDisk, WhereTheFolderIsGoneForAWhileLeaveTheOthers) {
  for (const int64_t ranks : {1, 2}) {
    const blt_test::TemporaryFolder folder;
    fs::permissions(folder.path(), fs::perms::all);
    const fs::path output = folder / "run", away = folder / "away";
    expect_only_the_second_missing(
        ranks, output, [&] { fs::rename(output, away); }, [&] { fs::rename(away, output); },
        "No such file or directory; the last whole one");
  }
}

TEST(FailingDisk, WhereNothingMayBeWrittenForAWhileLeaveTheOthers) {
  for (const int64_t ranks : {1, 2}) {
    const blt_test::TemporaryFolder folder;
    fs::permissions(folder.path(), fs::perms::all);
    const fs::path output = folder / "run";
    const auto allow = [&](fs::perms what) { fs::permissions(output, what); };
    expect_only_the_second_missing(
        ranks, output, [&] { allow(fs::perms::owner_read | fs::perms::owner_exec); },
        [&] { allow(fs::perms::owner_all); },
        "Permission denied; the last whole one is " + (output / "step_00000002").string() +
            "; the training goes on, and the next one is due at step ");
  }
}

}  // namespace
}  // namespace blt
