// Text that a rank cannot read ends the training of all in good order.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blt/base/signals.h"
#include "message.h"
#include "temporary_folder.h"
#include "train/checkpoint.h"
#include "train/manifest.h"
#include "train/ranks.h"
#include "train/resumable_training.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;
using testing::PlacedBatches;
using testing::resumable_training;

// With one: alone, without a transport.
void on_each(int64_t ranks, const std::function<void(const std::shared_ptr<Group>&)>& body) {
  ranks > 1 ? testing::in_group(ranks, body) : body(nullptr);
}

// What is read in a validation.
class FewBatches : public PlacedBatches {
 public:
  using PlacedBatches::PlacedBatches;
  std::optional<Batch> next() override { return left_-- > 0 ? PlacedBatches::next() : std::nullopt; }

 private:
  int left_ = 3;
};

TEST(FailingData, OfARankEndsAllWithWhatWasTrainedSaved) {
  at::set_num_threads(1);
  const int64_t accumulate = 2, steps = 6, good = 3;
  const TrainConfig config = testing::training(accumulate, Compute::kFloat32, steps);
  for (const int64_t ranks : {1, 2})
    for (const Sharding sharding : {Sharding::kNone, Sharding::kZero3}) {
      SCOPED_TRACE(std::to_string(ranks) + " " + std::string(name(sharding)));
      const TemporaryFolder folder;
      const std::filesystem::path saved = folder / "cut" / checkpoint_name(good);
      on_each(ranks, [&](const std::shared_ptr<Group>& group) {
        const testing::Division division{sharding, TablePlacement::kSharded};
        const std::vector<double> whole =
            resumable_training(group, config, division, folder / "whole").losses(steps);
        {
          // The last rank: the second batch of the fourth step.
          const bool is_last = !group || group->rank() == ranks - 1;
          const auto cut = resumable_training(group, config, division, folder / "cut", {},
                                              is_last ? std::optional(accumulate * good + 1) : std::nullopt);
          EXPECT_EQ(message_of([&] { cut.trainer->run(); }),
                    (group ? "rank 1: " : "") + std::string(PlacedBatches::kUnreadable) +
                        ". What was trained is saved in " + saved.string());
          EXPECT_EQ(cut.trainer->step(), good);
        }
        if (group) group->barrier("saved");
        EXPECT_NO_THROW(check_checkpoint(saved, group ? *group : *make_alone_group()));
        const std::vector<double> rest =
            resumable_training(group, config, division, folder / "cut", saved).losses(steps);
        EXPECT_EQ(rest, std::vector<double>(whole.begin() + good, whole.end()));
      });
    }
}

// Each rank reads all text: what is damaged is so for all of them.
TEST(FailingData, OfAllRanksIsSaidOnce) {
  at::set_num_threads(1);
  const TemporaryFolder folder;
  TrainConfig config = testing::training(1, Compute::kFloat32, 6);
  config.checkpoint_every = 2;
  testing::in_group(3, [&](const std::shared_ptr<Group>& group) {
    const auto training = resumable_training(group, config, {}, folder.path(), {}, 2);
    // The checkpoint of that step was not begun yet.
    EXPECT_EQ(message_of([&] { training.trainer->run(); }),
              "rank 0, 1, 2: " + std::string(PlacedBatches::kUnreadable) + ". What was trained is saved in " +
                  (folder / checkpoint_name(2)).string());
  });
}

// Nothing was trained.
TEST(FailingData, OfTheFirstStepLeavesNoCheckpoint) {
  const TemporaryFolder folder;
  const auto training =
      resumable_training(nullptr, testing::training(1, Compute::kFloat32, 6), {}, folder.path(), {}, 0);
  EXPECT_EQ(message_of([&] { training.trainer->run(); }), PlacedBatches::kUnreadable);
  EXPECT_TRUE(list_checkpoints(folder.path()).empty());
}

// Nor does it matter to a training that has its last step behind it, or is to stop.
TEST(FailingData, ThatNoStepNeedsIsNotRead) {
  const TemporaryFolder folder;
  const TrainConfig config = testing::training(1, Compute::kFloat32, 2);
  EXPECT_EQ(resumable_training(nullptr, config, {}, folder / "ends", {}, 2).trainer->run(),
            Trainer::Outcome::kFinished);
  request_stop();
  EXPECT_EQ(resumable_training(nullptr, config, {}, folder / "stops", {}, 1).trainer->run(),
            Trainer::Outcome::kStopped);
  clear_stop_request();
}

// With sharded tables a forward pass needs all ranks; without, each validates by itself.
TEST(FailingData, OfAValidationEndsAllWithWhatWasTrainedSaved) {
  at::set_num_threads(1);
  TrainConfig config = testing::training(1, Compute::kFloat32, 6);
  config.eval_every = 2;
  for (const int64_t ranks : {1, 2})
    for (const TablePlacement tables : {TablePlacement::kReplicated, TablePlacement::kSharded}) {
      const TemporaryFolder folder;
      on_each(ranks, [&](const std::shared_ptr<Group>& group) {
        const int64_t rank = group ? group->rank() : 0;
        int calls = 0;
        const auto held_out = [&]() -> std::unique_ptr<Stage<Batch>> {
          const bool breaks = ++calls == 2 && rank == ranks - 1;  // in the second validation
          return std::make_unique<FewBatches>(rank, breaks ? std::optional<int64_t>(1) : std::nullopt);
        };
        const auto training =
            resumable_training(group, config, {Sharding::kNone, tables}, folder.path(), {}, {}, held_out);
        EXPECT_EQ(message_of([&] { training.trainer->run(); }),
                  "validation at step 4: " + std::string(group ? "rank 1: " : "") +
                      PlacedBatches::kUnreadable + ". What was trained is saved in " +
                      (folder / checkpoint_name(4)).string());
        EXPECT_TRUE(training.model->is_training());
      });
      EXPECT_NO_THROW(check_checkpoint(folder / checkpoint_name(4), *make_alone_group()));
    }
}

}  // namespace
}  // namespace blt
