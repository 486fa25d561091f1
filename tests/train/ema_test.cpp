// Averages of the weights, as checkpoints have them: against a loop in double, over a resume, and divided among ranks.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/io/model_dir.h"
#include "blt/train/trainer.h"
#include "temporary_folder.h"
#include "train/ranks.h"
#include "train/saved_model.h"
#include "train/small_model.h"

namespace blt {
namespace {

using testing::in_group;
using testing::RepeatBatches;
using testing::saved_model;
using testing::sequence;
using testing::small_config;

constexpr const char* kTable = "local_encoder.embedding.ngram_table";
constexpr const char* kFrozen = "local_decoder.norm.weight";

TrainConfig quick(bool tables) {
  TrainConfig config;
  config.steps = 8;
  config.optimizer.learning_rate = 1e-2;
  config.optimizer.groups = {{.pattern = kFrozen, .frozen = true}};
  config.schedule = ConstantSchedule{};
  config.log_every = 1000;
  config.ema = EmaConfig{.decay = 0.3, .tables = tables};
  return config;
}

struct Averaged {
  Blt model{nullptr};
  std::unique_ptr<Trainer> trainer;
};

// All ranks train on the same text, so that they do what one alone does.
Averaged run_of(const TrainConfig& config, const std::filesystem::path& output,
                const std::shared_ptr<Group>& group = nullptr, const ParallelConfig& parallel = {}) {
  Averaged run;
  {
    static std::mutex one_at_a_time;  // the random numbers are everybody's
    const std::lock_guard lock(one_at_a_time);
    torch::manual_seed(3);
    run.model = Blt(small_config());
  }
  TrainerParts parts;
  parts.model = trainable(run.model);
  parts.train = std::make_unique<RepeatBatches>(
      std::vector<Batch>{Batch::pack({sequence("abcabcabcabc")}), Batch::pack({sequence("xyxyxyxyxyx")})});
  parts.hand_over = [](std::span<const StateReader> states) { return StateWriter::of(states[0]); };
  parts.output = output;
  std::filesystem::create_directories(output);
  parts.group = group;
  parts.parallel = parallel;
  parts.model_to_save = saved_model(run.model);
  run.trainer = std::make_unique<Trainer>(config, std::move(parts));
  return run;
}

using Parameters = std::map<std::string, torch::Tensor>;

Parameters parameters_of(const Blt& model) {
  Parameters parameters;
  for (const auto& item : model->named_parameters()) parameters[item.key()] = item.value().detach();
  return parameters;
}

// A checkpoint's averages.
Parameters averages_in(const std::filesystem::path& checkpoint) {
  return parameters_of(load_model(checkpoint / "ema").blt);
}

TEST(Ema, AveragesWhatALoopDoes) {
  const blt_test::TemporaryFolder folder;
  for (const bool tables : {false, true}) {
    const auto output = folder / (tables ? "tables" : "dense");
    const Averaged run = run_of(quick(tables), output);
    Parameters expected;
    for (const auto& [name, value] : parameters_of(run.model)) expected[name] = value.to(torch::kDouble);
    for (int64_t t = 0; t < 6; ++t) {
      run.trainer->train_step();
      const double decay = std::min(0.3, (1.0 + static_cast<double>(t)) / (10.0 + static_cast<double>(t)));
      for (const auto& [name, value] : parameters_of(run.model)) {
        const torch::Tensor now = value.to(torch::kDouble);
        const bool averaged = tables || name != kTable;
        expected[name] = averaged ? decay * expected[name] + (1 - decay) * now : now;
      }
    }
    run.trainer->save();
    run.trainer->finish_saving();
    const Parameters own = parameters_of(run.model);
    for (const auto& [name, average] : averages_in(output / "step_00000006")) {
      EXPECT_LE((average - expected[name]).abs().max().item<double>(), 1e-6) << name;
      EXPECT_EQ(torch::equal(average, own.at(name)), (!tables && name == kTable) || name == kFrozen) << name;
    }
  }
}

// Steps that bfloat16 cannot show: its parameters stay where they are, and the averages do not.
TEST(Ema, AveragesTheMastersOfBfloat16Parameters) {
  const blt_test::TemporaryFolder folder;
  TrainConfig config = quick(true);
  config.compute = Compute::kBfloat16;
  config.optimizer.learning_rate = 1e-6;
  const auto masters_of = [](const Averaged& run) {
    Parameters masters;
    for (const OptimizerTensor& item : run.trainer->optimizer().state())
      if (item.name.ends_with(".master"))
        masters[item.name.substr(0, item.name.rfind('.'))] = item.tensor.to(torch::kDouble);
    return masters;
  };
  const auto save = [](const Averaged& run) {
    run.trainer->save();
    run.trainer->finish_saving();
  };
  const Averaged alone = run_of(config, folder / "alone");
  const Parameters start = masters_of(alone);
  Parameters expected = start;
  for (int64_t t = 0; t < 3; ++t) {
    alone.trainer->train_step();
    const double decay = std::min(0.3, (1.0 + static_cast<double>(t)) / (10.0 + static_cast<double>(t)));
    for (const auto& [name, now] : masters_of(alone))
      expected[name] = decay * expected[name] + (1 - decay) * now;
  }
  save(alone);
  const auto furthest = [](const torch::Tensor& a, const torch::Tensor& b) {
    return (a - b).abs().max().item<double>();
  };
  const Parameters averages = averages_in(folder / "alone/step_00000003");
  for (const auto& [name, average] : expected) {
    EXPECT_LE(furthest(averages.at(name), average), 2e-7) << name;
    EXPECT_GE(furthest(averages.at(name), start.at(name)), 9e-7) << name;
  }
  EXPECT_EQ(expected.count(kTable), 1u);
  // Parts of them, which ranks move.
  for (const Sharding sharding : {Sharding::kNone, Sharding::kZero1, Sharding::kZero3}) {
    const auto output = folder / std::string(name(sharding));
    in_group(2, [&](const std::shared_ptr<Group>& group) {
      const Averaged run = run_of(config, output, group, {.sharding = sharding});
      for (int64_t t = 0; t < 3; ++t) run.trainer->train_step();
      save(run);
    });
    const Parameters divided = averages_in(output / "step_00000003");
    for (const auto& [name, average] : expected)
      EXPECT_LE(furthest(divided.at(name), average), 3e-7) << blt::name(sharding) << " " << name;
  }
}

TEST(Ema, GoesOnBitForBit) {
  const blt_test::TemporaryFolder folder;
  for (const Compute compute : {Compute::kFloat32, Compute::kBfloat16}) {
    const std::string name = compute == Compute::kFloat32 ? "float32" : "bfloat16";
    TrainConfig config = quick(false);
    config.compute = compute;
    config.optimizer.matrices = RuleKind::kMuon;
    config.accumulate_from = {{.step = 2, .batches = 2}, {.step = 6, .batches = 3}};
    config.checkpoint_every = 4;
    const auto whole_output = folder / (name + "/whole"), rest_output = folder / (name + "/rest");
    const Averaged whole = run_of(config, whole_output);
    EXPECT_EQ(whole.trainer->run(), Trainer::Outcome::kFinished);
    const Averaged rest = run_of(config, rest_output);
    load_weights(whole_output / "step_00000004", rest.model, EntropyModel(nullptr));
    rest.trainer->resume(whole_output / "step_00000004");
    EXPECT_EQ(rest.trainer->run(), Trainer::Outcome::kFinished);

    const Parameters averages = averages_in(whole_output / "step_00000008");
    for (const auto& [parameter, value] : averages_in(rest_output / "step_00000008"))
      EXPECT_TRUE(torch::equal(value, averages.at(parameter))) << name << " " << parameter;
    const Parameters own = parameters_of(whole.model);
    for (const auto& [parameter, value] : parameters_of(rest.model))
      EXPECT_TRUE(torch::equal(value, own.at(parameter))) << name << " " << parameter;
  }
}

TEST(Ema, DividedAmongRanksIsTheSameAndGoesOnWithOthers) {
  const blt_test::TemporaryFolder folder;
  TrainConfig config = quick(true);
  config.checkpoint_every = 4;
  run_of(config, folder / "alone").trainer->run();
  const Parameters expected = averages_in(folder / "alone/step_00000008");
  struct Case {
    Sharding sharding;
    TablePlacement tables, resumed;
  };
  constexpr TablePlacement kReplicated = TablePlacement::kReplicated, kSharded = TablePlacement::kSharded;
  for (const auto [sharding, tables, resumed] : {Case{Sharding::kNone, kReplicated, kSharded},
                                                 {Sharding::kNone, kSharded, kReplicated},
                                                 {Sharding::kZero1, kReplicated, kReplicated},
                                                 {Sharding::kZero2, kSharded, kSharded},
                                                 {Sharding::kZero3, kReplicated, kSharded},
                                                 {Sharding::kZero3, kSharded, kReplicated}}) {
    const std::string of = std::string(name(sharding)) + "_" + std::string(name(tables));
    const auto train = [&](int64_t ranks, const std::filesystem::path& output, bool resumes) {
      in_group(ranks, [&](const std::shared_ptr<Group>& group) {
        const Averaged run =
            run_of(config, output, group, {.sharding = sharding, .tables = resumes ? resumed : tables});
        if (resumes) {
          load_weights(folder / (of + "/step_00000004"), run.model, EntropyModel(nullptr));
          run.trainer->resume(folder / (of + "/step_00000004"));
        }
        EXPECT_EQ(run.trainer->run(), Trainer::Outcome::kFinished);
      });
    };
    train(3, folder / of, false);
    train(2, folder / (of + "_resumed"), true);
    for (const char* run : {"", "_resumed"}) {
      const Parameters averages = averages_in(folder / (of + run + "/step_00000008"));
      ASSERT_EQ(averages.size(), expected.size());
      ASSERT_EQ(averages.count(kTable), 1u);
      for (const auto& [parameter, value] : averages)
        EXPECT_LE((value - expected.at(parameter)).abs().max().item<double>(), 1e-4)
            << of << run << " " << parameter;
    }
  }
}

TEST(Ema, OfAnotherModelIsRefused) {
  const blt_test::TemporaryFolder folder;
  const Averaged run = run_of(quick(false), folder / "run");
  run.trainer->train_step();
  run.trainer->save();
  run.trainer->finish_saving();
  const auto checkpoint = folder / "run/step_00000001";
  std::filesystem::remove(checkpoint / "ema/model.safetensors");
  EXPECT_THROW(run_of(quick(false), folder / "next").trainer->resume(checkpoint), Error);
}

}  // namespace
}  // namespace blt
