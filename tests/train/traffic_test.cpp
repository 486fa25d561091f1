// What travels between ranks in a step, and when.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "blt/train/group_layer.h"
#include "blt/train/trainer.h"
#include "train/divided_training.h"
#include "train/ranks.h"

namespace blt {
namespace {

using namespace testing;

// What a rank sends in a step.
struct Sent {
  int64_t transfers = 0, bytes = 0;

  bool operator==(const Sent&) const = default;
  void add(int64_t more) { ++transfers, bytes += more; }
};
void PrintTo(const Sent& sent, std::ostream* out) {
  *out << sent.transfers << " transfers of " << sent.bytes << " bytes";
}

// The same text in one batch a step and in four: gradients are added up before they travel, and so are those of table rows.
TEST(Traffic, GradientsOfSeveralBatchesTravelOnce) {
  at::set_num_threads(1);
  struct Step {
    Sent dense, rows, all;
  };
  const auto step_of = [](const std::shared_ptr<Group>& group, const Division& division, int64_t accumulate) {
    Step step;
    TrainerParts parts;
    const Blt model = new_model();
    parts.model = trainable(model);
    parts.train = share_of(group->rank(), group->size(), accumulate);
    parts.group = std::make_shared<WatchedGroup>(group, [&](const WatchedGroup::Seen& seen) {
      step.all.add(seen.bytes);
      if (seen.what.starts_with("gradients, ")) step.dense.add(seen.bytes);
      if (seen.what == "gradients of table rows") step.rows.add(seen.bytes);
    });
    parts.parallel = divided(division);
    Trainer trainer(training(accumulate, Compute::kFloat32), std::move(parts));
    step = {};
    trainer.train_step();
    return step;
  };
  for (const Division& division : divisions())
    for (const int64_t ranks : {2, 3})
      in_group(ranks, [&](const std::shared_ptr<Group>& group) {
        const std::string what = fmt::format("{}, rank {} of {}", name_of(division), group->rank(), ranks);
        const Step one = step_of(group, division, 1), four = step_of(group, division, 4);
        EXPECT_GT(one.dense.transfers, 1) << what;
        EXPECT_EQ(one.rows.transfers, 1) << what;
        EXPECT_EQ(four.rows, one.rows) << what;
        // From ZeRO-2 on no rank has whole gradients, to which the next batch could add.
        const int64_t times = division.has(Sharding::kZero2) ? 4 : 1;
        EXPECT_EQ(four.dense, (Sent{times * one.dense.transfers, times * one.dense.bytes})) << what;
        if (!division.has(Sharding::kZero2) && !division.has_tables()) {
          EXPECT_EQ(four.all, one.all) << what;
        }
      });
}

// Keeps the names of transfers, and hands them on.
class NamedGroup : public GroupLayer {
 public:
  explicit NamedGroup(std::shared_ptr<Group> below) : GroupLayer(std::move(below)) {}

  std::vector<std::string> begun_names, awaited_names;

 protected:
  Pending begun(Pending transfer, at::Device, int64_t, std::string_view what) override {
    begun_names.emplace_back(what);
    return std::make_unique<Named>(*this, std::move(transfer), std::string(what));
  }

 private:
  class Named : public Transfer {
   public:
    Named(NamedGroup& group, Pending transfer, std::string what)
        : group_(group), transfer_(std::move(transfer)), what_(std::move(what)) {}
    void wait() override {
      transfer_->wait();
      group_.awaited_names.push_back(what_);
    }

   private:
    NamedGroup& group_;
    Pending transfer_;
    std::string what_;
  };
};

// Those that begin so.
std::vector<std::string> among(const std::vector<std::string>& names, const std::string& begin) {
  std::vector<std::string> result;
  for (const std::string& name : names)
    if (name.starts_with(begin)) result.push_back(name);
  return result;
}

// A training whose transfers are seen, of the group it is given.
struct SeenTraining {
  SeenTraining(const std::shared_ptr<Group>& below, const TrainConfig& config, const ParallelConfig& parallel)
      : group(std::make_shared<NamedGroup>(below)), model(new_model()) {
    TrainerParts parts;
    parts.model = trainable(model);
    parts.train = share_of(group->rank(), group->size(), config.accumulate);
    parts.group = group;
    parts.parallel = parallel;
    parts.loss = [this](const at::Tensor& logits, const Batch& batch) {
      after_forward = group->awaited_names;
      return next_id_loss(logits, batch);
    };
    trainer = std::make_unique<Trainer>(config, std::move(parts));
  }

  std::shared_ptr<NamedGroup> group;
  Blt model;
  std::vector<std::string> after_forward = {};  // what had been waited for after the last one
  std::unique_ptr<Trainer> trainer;
};

TEST(Traffic, WhatAStepMovedTravelsDuringTheNextForwardPass) {
  at::set_num_threads(1);
  for (const Sharding sharding : {Sharding::kZero1, Sharding::kZero2, Sharding::kZero3})
    for (const bool overlap : {true, false})
      in_group(2, [&](const std::shared_ptr<Group>& below) {
        ParallelConfig parallel = divided({sharding, TablePlacement::kSharded});
        parallel.overlap = overlap;
        SeenTraining training_of(below, training(1, Compute::kFloat32), parallel);
        Trainer& trainer = *training_of.trainer;
        NamedGroup& group = *training_of.group;
        const std::string what = std::string(name(sharding)) + (overlap ? ", overlap" : "");
        const std::string moved = "parameters, ";

        trainer.train_step();
        const size_t begun = among(group.begun_names, moved).size();
        if (overlap) {
          EXPECT_EQ(begun, 1u) << what;
          EXPECT_TRUE(among(group.awaited_names, moved).empty()) << what;
        }
        group.begun_names.clear();
        trainer.train_step();
        const std::vector<std::string> later = among(group.begun_names, moved);
        const auto count = std::stoul(later.back().substr(later.back().rfind(' ')));
        EXPECT_GT(count, 2u) << what;
        if (overlap) {
          EXPECT_EQ(later.size(), count) << what << ": the rest of one step's, and the first of the next one";
          EXPECT_EQ(among(training_of.after_forward, moved).size(), count) << what;
          // Look-ups in tables have one bucket before them, not all.
          EXPECT_LT(std::ranges::find(group.begun_names, "table look-ups") - group.begun_names.begin(),
                    std::ranges::find(group.begun_names, later.front()) - group.begun_names.begin())
              << what;
        } else {
          EXPECT_EQ(begun, count) << what;
          EXPECT_EQ(among(group.awaited_names, moved).size(), 2 * count) << what;
        }
        trainer.parallel().make_whole();
        EXPECT_EQ(among(group.awaited_names, moved).size(), 2 * count) << what;
      });
}

// Where rows without a gradient stay as they are, they do not travel: the losses are those of one rank, and the tables of all ranks alike.
TEST(Traffic, RowsThatStayDoNotTravel) {
  at::set_num_threads(1);
  TrainConfig config = training(2, Compute::kFloat32, /*steps=*/4);
  config.optimizer.table_update = TableUpdate::kLazy;
  const auto losses_of = [&](Trainer& trainer) {
    std::vector<double> losses;
    while (trainer.step() < config.steps) losses.push_back(trainer.train_step().loss.item<double>());
    return losses;
  };
  TrainerParts alone;
  const Blt model = new_model();
  alone.model = trainable(model);
  alone.train = share_of(0, 1, config.accumulate);
  Trainer one(config, std::move(alone));
  const std::vector<double> expected = losses_of(one);
  const at::Tensor table = model->local_encoder->embedding->ngram_table.detach();

  for (const Sharding sharding : {Sharding::kZero1, Sharding::kZero2, Sharding::kZero3})
    in_group(3, [&](const std::shared_ptr<Group>& below) {
      std::map<std::string, int64_t> bytes;
      const auto watched = std::make_shared<WatchedGroup>(
          below, [&](const WatchedGroup::Seen& seen) { bytes[seen.what] += seen.bytes; });
      SeenTraining training_of(watched, config, divided({.sharding = sharding}));
      bytes.clear();
      const std::vector<double> losses = losses_of(*training_of.trainer);
      for (size_t i = 0; i < losses.size(); ++i)
        EXPECT_NEAR(losses[i], expected[i], 1e-4 * expected[i]) << name(sharding) << ", step " << i + 1;
      const at::Tensor own = training_of.model->local_encoder->embedding->ngram_table.detach();
      EXPECT_LT((own - table).abs().max().item<double>(), 1e-4) << name(sharding);
      int64_t of_tables = 0;
      for (const auto& [what, sent] : bytes)
        if (what.ends_with("ngram_table")) of_tables += sent;
      EXPECT_GT(of_tables, 0) << name(sharding);
      EXPECT_LT(of_tables, static_cast<int64_t>(own.nbytes()) * config.steps * 3 / 4) << name(sharding);
    });
}

}  // namespace
}  // namespace blt
