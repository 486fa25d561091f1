// Several ranks train as one would: the same losses, whatever is divided among them.
#include "blt/train/parallel.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "blt/data/loader.h"
#include "blt/io/safetensors.h"
#include "blt/train/trainer.h"
#include "temporary_folder.h"
#include "train/divided_training.h"
#include "train/ranks.h"

namespace blt {
namespace {

using namespace testing;

struct Result {
  std::vector<double> losses, norms;
  std::vector<at::Tensor> module_norms, parameters;
  std::map<std::string, at::Tensor> state;
  int64_t dense_state_bytes = 0, table_state_bytes = 0;  // this rank's
  Parallel::Kept kept = {};                              // after a step, before the gradients go
  int64_t parameters_in_between = 0;                     // bytes kept between a forward and its backward
  int64_t targets = 0;
};

struct Where {
  at::Device device = at::kCPU;
  std::filesystem::path output = {};  // of a checkpoint in the end; empty: none is saved
  at::ScalarType type = at::kFloat;
};
Result train(const std::shared_ptr<Group>& group, const TrainConfig& config, const ParallelConfig& parallel,
             const Where& where = {}) {
  const Blt model = new_model(where.device, where.type);
  const std::filesystem::path& output = where.output;
  TrainerParts parts;
  parts.model = trainable(model);
  const int64_t rank = group ? group->rank() : 0, ranks = group ? group->size() : 1;
  parts.train = share_of(rank, ranks, config.accumulate, where.device);
  parts.group = group;
  parts.parallel = parallel;
  parts.output = output;
  parts.model_to_save = [model] {
    ModelToSave saved{.tensors = {}, .write_rest = [](const std::filesystem::path&) {}};
    for (const auto& item : model->named_parameters()) saved.tensors.emplace_back(item.key(), item.value());
    return saved;
  };
  if (!output.empty() && rank == 0) std::filesystem::create_directories(output);
  Result result;
  const Trainer* running = nullptr;
  parts.loss = [&](const at::Tensor& logits, const Batch& batch) {
    result.parameters_in_between = running->parallel().kept().parameters;
    return next_id_loss(logits, batch);
  };
  Trainer trainer(config, std::move(parts));
  running = &trainer;
  while (trainer.step() < config.steps) {
    const StepStats stats = trainer.train_step();
    result.losses.push_back(stats.loss.item<double>());
    result.norms.push_back(stats.clip.norm.item<double>());
    result.module_norms.push_back(stats.module_norms.cpu());
    result.targets = stats.targets;
  }
  result.kept = trainer.parallel().kept();
  for (const OptimizerTensor& item : trainer.optimizer().state())
    (item.name.find("ngram_table") == item.name.npos ? result.dense_state_bytes : result.table_state_bytes) +=
        static_cast<int64_t>(item.tensor.nbytes());
  if (!output.empty()) {
    trainer.save();
    trainer.finish_saving();
    EXPECT_EQ(trainer.parallel().kept().parameters, result.kept.parameters) << "nothing is put together";
    const SafetensorsFile saved(output / fmt::format("step_{:08}/optimizer.safetensors", config.steps));
    for (const SafetensorsEntry& entry : saved.entries())
      result.state[entry.name] = saved.tensor(entry.name).clone();
  }
  trainer.parallel().make_whole();
  for (const auto& parameter : model->parameters())
    result.parameters.push_back(parameter.detach().to(at::kCPU, /*non_blocking=*/false, /*copy=*/true));
  if (output.empty()) return result;
  const SafetensorsFile weights(output / fmt::format("step_{:08}/model.safetensors", config.steps));
  for (const auto& item : model->named_parameters())
    EXPECT_TRUE(torch::equal(weights.tensor(item.key()), item.value().cpu())) << item.key();
  return result;
}

// norms: by how much more than losses they may differ.
void expect_close(const Result& one, const Result& many, double first, double later, const std::string& what,
                  double norms = 10) {
  ASSERT_EQ(one.losses.size(), many.losses.size());
  EXPECT_EQ(one.targets, many.targets);
  for (size_t i = 0; i < one.losses.size(); ++i) {
    const double tolerance = i == 0 ? first : later;
    EXPECT_NEAR(many.losses[i], one.losses[i], tolerance * one.losses[i]) << what << ", step " << i + 1;
    EXPECT_NEAR(many.norms[i], one.norms[i], norms * tolerance * one.norms[i]) << what << ", step " << i + 1;
    EXPECT_TRUE(at::allclose(many.module_norms[i], one.module_norms[i], norms * tolerance, 1e-6))
        << what << ", step " << i + 1 << "\n"
        << many.module_norms[i] << one.module_norms[i];
  }
}

class ParallelTraining : public testing::OnProcessors {
 protected:
  void SetUp() override {
    OnProcessors::SetUp();
    at::set_num_threads(1);
  }
  // How far sums in another order may be apart: a GPU's are in another order within a rank too.
  double tolerance(double on_cpu) const { return GetParam() == at::kCPU ? on_cpu : 10 * on_cpu; }
  // With every number of ranks: one over a transport takes the ways of many.
  // How far the same training, done again, may be apart: on the CPU it is the same to the bit.
  double repeated() const { return GetParam() == at::kCPU ? 0 : 1e-4; }
  std::vector<Result> train_many(int64_t wanted, const TrainConfig& config, const ParallelConfig& parallel,
                                 const std::filesystem::path& output = {}) const {
    std::vector<Result> many(static_cast<size_t>(ranks(wanted)));
    in_group(ranks(wanted), [&](const std::shared_ptr<Group>& group) {
      many[static_cast<size_t>(group->rank())] =
          train(group, config, parallel, {.device = device_of(group->rank()), .output = output});
    });
    return many;
  }
  void expect_the_losses_of_one(const TrainConfig& config, const std::vector<Division>& divisions,
                                double bucket_mib, double first, double later,
                                at::ScalarType type = at::kFloat) const;
};

void ParallelTraining::expect_the_losses_of_one(const TrainConfig& config,
                                                const std::vector<Division>& divisions, double bucket_mib,
                                                double first, double later, at::ScalarType type) const {
  const blt_test::TemporaryFolder folder;
  int runs = 0;
  const Result one =
      train(nullptr, config, {}, {.device = device_of(0), .output = folder / "one", .type = type});
  EXPECT_LT(one.losses.back(), one.losses.front() - 0.1);
  for (const Division& division : divisions)
    for (const int64_t count : numbers_of_ranks(4)) {
      std::vector<Result> many(static_cast<size_t>(count));
      const auto output = folder / std::to_string(runs++);
      in_group(count, [&](const std::shared_ptr<Group>& group) {
        ParallelConfig parallel = divided(division);
        parallel.bucket_mib = bucket_mib;
        many[static_cast<size_t>(group->rank())] = train(
            group, config, parallel, {.device = device_of(group->rank()), .output = output, .type = type});
      });
      const std::string what =
          fmt::format("{}, {} ranks, accumulate {}", name_of(division), count, config.accumulate);
      for (const Result& result : many) {
        expect_close(one, result, tolerance(first), tolerance(later), what);
        EXPECT_EQ(result.losses, many[0].losses) << what;
        ASSERT_EQ(result.parameters.size(), one.parameters.size()) << what;
        for (size_t i = 0; i < result.parameters.size(); ++i)
          EXPECT_TRUE(torch::equal(result.parameters[i], many[0].parameters[i]))
              << what << ", parameter " << i;
      }
      // What a checkpoint would hold is the same, whoever had which part of it.
      ASSERT_EQ(one.state.size(), many[0].state.size()) << what;
      for (const auto& [name, tensor] : one.state) {
        ASSERT_EQ(many[0].state.count(name), 1u) << name;
        const double largest = tensor.to(at::kDouble).abs().max().item<double>();
        EXPECT_TRUE(torch::allclose(many[0].state.at(name), tensor, 1e-2, 1e-3 * largest))
            << what << ", " << name;
      }
    }
}

TEST_P(ParallelTraining, AnyNumberOfRanksGivesTheLossesOfOne) {
  for (const int64_t accumulate : {1, 4})
    expect_the_losses_of_one(training(accumulate, Compute::kFloat32), divisions(), kSmallBuckets, 1e-6, 1e-4);
}

// Buckets as large as can be, so that 50 steps take as little time as can be.
TEST_P(ParallelTraining, InFloat64TheLossesOfOneToNineDigits) {
  if (GetParam() != at::kCPU) GTEST_SKIP() << "libblt trains in float64 on the CPU alone";
  expect_the_losses_of_one(training(1, Compute::kFloat32, /*steps=*/50), divisions(), 25, 1e-9, 1e-9,
                           at::kDouble);
}

TEST_P(ParallelTraining, InFloat64TheLossesOfOneToNineDigitsOverSeveralBatchesAStep) {
  if (GetParam() != at::kCPU) GTEST_SKIP() << "libblt trains in float64 on the CPU alone";
  expect_the_losses_of_one(training(4, Compute::kFloat32, /*steps=*/50), divisions(), 25, 1e-9, 1e-9,
                           at::kDouble);
}

TrainConfig with_muon(TrainConfig config) {
  config.optimizer.matrices = RuleKind::kMuon;
  // The first pattern counts: a matrix that is none of those inside layers, and one of those that moves by AdamW.
  config.optimizer.groups = {{.pattern = "lm_head.weight", .rule = RuleKind::kMuon},
                             {.pattern = "*.layers.1.mlp.down_proj.weight", .rule = RuleKind::kAdamW}};
  return config;
}

constexpr Division kOfMuon[] = {{Sharding::kNone, TablePlacement::kReplicated},
                                {Sharding::kZero1, TablePlacement::kReplicated},
                                {Sharding::kZero2, TablePlacement::kSharded},
                                {Sharding::kZero3, TablePlacement::kReplicated},
                                {Sharding::kZero3, TablePlacement::kSharded}};
const std::vector<Division> kDivisionsOfMuon(std::begin(kOfMuon), std::end(kOfMuon));

// Matrices that move as a whole lie across the ranks' ranges: of small buckets most, of one large one a few.
TEST_P(ParallelTraining, MuonGivesTheLossesOfOneWithAnyNumberOfRanks) {
  for (const int64_t accumulate : {1, 4})
    expect_the_losses_of_one(with_muon(training(accumulate, Compute::kFloat32)), kDivisionsOfMuon,
                             kSmallBuckets, 1e-6, 1e-4);
}

TEST_P(ParallelTraining, MuonInFloat64GivesTheLossesOfOneToNineDigits) {
  if (GetParam() != at::kCPU) GTEST_SKIP() << "libblt trains in float64 on the CPU alone";
  const TrainConfig config = with_muon(training(1, Compute::kFloat32, /*steps=*/50));
  expect_the_losses_of_one(config, kDivisionsOfMuon, 25, 1e-9, 1e-9, at::kDouble);
  expect_the_losses_of_one(config, {{Sharding::kZero2, TablePlacement::kReplicated}}, kSmallBuckets, 1e-9,
                           1e-9, at::kDouble);
}

// What is rounded at random is rounded alike, whoever has which rows: sums of several ranks' gradients differ in their last bits, and so few moments
// lie on the other side of where they are rounded.
TEST_P(ParallelTraining, Bfloat16StateOfTablesIsThatOfOne) {
  const blt_test::TemporaryFolder folder;
  for (const SecondMoment second : {SecondMoment::kElement, SecondMoment::kRow}) {
    TrainConfig config = training(1, Compute::kFloat32);
    config.optimizer.table_moments = TableMoments::kBfloat16;
    config.optimizer.table_second_moment = second;
    const std::string kind(name(second));
    const Result one =
        train(nullptr, config, {}, {.device = device_of(0), .output = folder / (kind + "-one")});
    for (const Division& division : {Division{Sharding::kNone, TablePlacement::kSharded},
                                     Division{Sharding::kZero1, TablePlacement::kReplicated},
                                     Division{Sharding::kZero3, TablePlacement::kSharded}}) {
      const std::string what = kind + "-" + name_of(division);
      const std::vector<Result> many = train_many(3, config, divided(division), folder / what);
      for (const Result& result : many) expect_close(one, result, tolerance(1e-6), tolerance(1e-4), what);
      ASSERT_EQ(one.state.size(), many[0].state.size()) << what;
      int narrow = 0;
      for (const auto& [name, tensor] : one.state) {
        ASSERT_EQ(many[0].state.count(name), 1u) << name;
        const at::Tensor other = many[0].state.at(name);
        ASSERT_EQ(other.sizes(), tensor.sizes()) << what << ", " << name;
        ASSERT_EQ(other.scalar_type(), tensor.scalar_type()) << what << ", " << name;
        const double largest = tensor.to(at::kDouble).abs().max().item<double>();
        EXPECT_TRUE(torch::allclose(other, tensor, 2e-2, 1e-3 * largest)) << what << ", " << name;
        if (tensor.scalar_type() != at::kBFloat16) continue;
        ++narrow;
        EXPECT_LT((other != tensor).to(at::kDouble).mean().item<double>(), 0.02) << what << ", " << name;
      }
      EXPECT_EQ(narrow, second == SecondMoment::kRow ? 1 : 2);
    }
  }
}

TEST_P(ParallelTraining, InBfloat16LossesFollowThoseOfOne) {
  const blt_test::TemporaryFolder folder;
  const auto expect = [&](const TrainConfig& config, const std::vector<Division>& all,
                          const std::string& by) {
    const Result one = train(nullptr, config, {}, {.device = device_of(0), .output = folder / (by + "-one")});
    for (const Division& division : all) {
      const std::string what = by + "-" + name_of(division);
      const std::vector<Result> many = train_many(3, config, divided(division), folder / what);
      for (const Result& result : many) {
        expect_close(one, result, 2e-3, 1e-2, what);
        for (size_t i = 0; i < result.parameters.size(); ++i)
          EXPECT_TRUE(torch::equal(result.parameters[i], many[0].parameters[i])) << what << " " << i;
      }
      ASSERT_EQ(one.state.size(), many[0].state.size());
      for (const auto& [name, tensor] : one.state) {
        ASSERT_EQ(many[0].state.count(name), 1u) << name;
        EXPECT_EQ(tensor.sizes(), many[0].state.at(name).sizes()) << name;
      }
    }
  };
  const TrainConfig config = training(2, Compute::kBfloat16);
  expect(config, divisions(), "adamw");
  expect(with_muon(config), kDivisionsOfMuon, "muon");
}

// A gradient of one rank that is NaN, of a matrix that lies across ranks: all go through the step, and nothing changes.
TEST_P(ParallelTraining, AStepOfMuonThatIsNotFiniteOnOneRankChangesNothingOnAny) {
  const int64_t all = ranks(3), broken = std::min<int64_t>(1, all - 1);
  for (const Sharding sharding : kShardings) {
    in_group(all, [&](const std::shared_ptr<Group>& group) {
      Blt model = new_model(device_of(group->rank()));
      const auto parallel = make_parallel(divided({.sharding = sharding}), group, *model);
      Optimizer optimizer(with_muon(training(1, Compute::kFloat32)).optimizer, parallel->parts());
      const Batch batch = *share_of(group->rank(), all, 1, device_of(group->rank()))->next();
      const auto step = [&](double factor) {
        parallel->backward(next_id_loss(model(batch), batch).sum * factor, /*last=*/true);
        const Gradients gradients = parallel->finish_gradients();
        const at::Tensor squares = parallel->squared_norms(gradients, gradient_modules(*model));
        parallel->step(optimizer, gradients, clip(squares.sum().sqrt().to(at::kFloat), 1.0), 1.0);
      };
      const auto values = [&] {
        std::map<std::string, at::Tensor> tensors;
        for (const auto& [name, own] : parallel->own_parameters()) tensors[name] = own.clone();
        for (const auto& item : optimizer.state()) tensors[item.name] = item.tensor.clone();
        return tensors;
      };
      step(1.0);
      const std::map<std::string, at::Tensor> before = values();
      step(group->rank() == broken ? std::numeric_limits<double>::quiet_NaN() : 1.0);
      for (const auto& [name, value] : values())
        EXPECT_TRUE(torch::equal(value, before.at(name))) << blt::name(sharding) << " " << name;
      step(1.0);
      bool any_moved = false;
      for (const auto& [name, value] : values()) {
        EXPECT_TRUE(value.isfinite().all().item<bool>()) << blt::name(sharding) << " " << name;
        any_moved = any_moved || !torch::equal(value, before.at(name));
      }
      EXPECT_TRUE(any_moved);
    });
  }
}

// Two ranks, then three with another sharding, then one: momentum lies in a checkpoint as if it had never been divided.
TEST_P(ParallelTraining, MuonGoesOnWithAnotherNumberOfRanks) {
  const blt_test::TemporaryFolder folder;
  const Result one =
      train(nullptr, with_muon(training(1, Compute::kFloat32, /*steps=*/9)), {}, {.device = device_of(0)});
  std::vector<double> losses;
  struct Leg {
    int64_t ranks = 1;
    Division division = {};
  };
  int64_t steps = 0;
  for (const Leg& leg : {Leg{2, {Sharding::kZero3, TablePlacement::kReplicated}},
                         Leg{3, {Sharding::kZero1, TablePlacement::kSharded}}, Leg{1, {}}}) {
    const int64_t first = steps;
    steps += 3;
    in_group(ranks(leg.ranks), [&](const std::shared_ptr<Group>& group) {
      const Blt model = new_model(device_of(group->rank()));
      TrainerParts parts;
      parts.model = trainable(model);
      parts.train = share_of(group->rank(), group->size(), 1, device_of(group->rank()));
      parts.hand_over = [](std::span<const StateReader> states) { return StateWriter::of(states[0]); };
      parts.group = group;
      parts.parallel = divided(leg.division);
      parts.output = folder.path();
      parts.model_to_save = [model] {
        ModelToSave saved{.tensors = {}, .write_rest = [](const std::filesystem::path&) {}};
        for (const auto& item : model->named_parameters())
          saved.tensors.emplace_back(item.key(), item.value());
        return saved;
      };
      Trainer trainer(with_muon(training(1, Compute::kFloat32, steps)), std::move(parts));
      if (first > 0) {
        const auto checkpoint = folder / fmt::format("step_{:08}", first);
        const SafetensorsFile weights(checkpoint / "model.safetensors");
        trainer.parallel().make_whole();
        {
          const torch::NoGradGuard no_grad;
          for (auto& item : model->named_parameters()) item.value().copy_(weights.tensor(item.key()));
        }
        trainer.resume(checkpoint);
      }
      while (trainer.step() < steps) {
        const double loss = trainer.train_step().loss.item<double>();
        if (group->is_first()) losses.push_back(loss);
      }
      trainer.save();
      trainer.finish_saving();
    });
  }
  ASSERT_EQ(losses.size(), one.losses.size());
  for (size_t i = 0; i < losses.size(); ++i)
    EXPECT_NEAR(losses[i], one.losses[i], tolerance(i == 0 ? 1e-6 : 1e-4) * one.losses[i])
        << "step " << i + 1;
}

TEST(Parallel, WhatIsDividedFallsWithTheNumberOfRanks) {
  at::set_num_threads(1);
  // All matrices by Muon: what it keeps of an element is half of what AdamW does, and ranks have equal ranges of elements.
  TrainConfig muon = training(2, Compute::kFloat32);
  muon.optimizer.groups = {{.pattern = "*_proj.weight", .rule = RuleKind::kMuon},
                           {.pattern = "*_projection.weight", .rule = RuleKind::kMuon},
                           {.pattern = "*byte_table", .rule = RuleKind::kMuon},
                           {.pattern = "lm_head.weight", .rule = RuleKind::kMuon}};
  for (TrainConfig config : {training(2, Compute::kFloat32), training(2, Compute::kBfloat16), muon}) {
    config.steps = 1;
    const Result one = train(nullptr, config, {});
    const int64_t element = config.compute == Compute::kFloat32 ? 4 : 2;
    const Blt model = new_model();
    int64_t all = 0, dense = 0, layers = 0;  // elements
    for (const auto& item : model->named_parameters()) {
      all += item.value().numel();
      if (!item.key().ends_with("ngram_table")) dense += item.value().numel();
    }
    for (const auto& parameter : model->latent_transformer->layers->parameters()) layers += parameter.numel();
    EXPECT_GT(layers, dense / 4);
    const auto expect_bytes = [&](int64_t bytes, double expected, const std::string& what) {
      EXPECT_NEAR(static_cast<double>(bytes), expected, 0.05 * expected) << what;
    };
    for (const Division& division : divisions())
      for (const int64_t ranks : {2, 3, 4}) {
        std::vector<Result> many(static_cast<size_t>(ranks));
        in_group(ranks, [&](const std::shared_ptr<Group>& group) {
          many[static_cast<size_t>(group->rank())] = train(group, config, divided(division));
        });
        const std::string what = fmt::format("{}, {} ranks", name_of(division), ranks);
        const auto share = [&](int64_t number, bool is_divided) {
          return static_cast<double>(number) / static_cast<double>(is_divided ? ranks : 1);
        };
        const bool zero1 = division.has(Sharding::kZero1);
        const double state = share(one.dense_state_bytes, zero1) +
                             share(one.table_state_bytes, zero1 || division.has_tables());
        const double divided_parameters =
            share(layers, division.has(Sharding::kZero3)) + share(all - dense, division.has_tables());
        for (const Result& result : many) {
          expect_bytes(result.dense_state_bytes + result.table_state_bytes, state, what);
          expect_bytes(result.kept.gradients, 4 * share(dense, division.has(Sharding::kZero2)), what);
          EXPECT_EQ(result.parameters_in_between, result.kept.parameters) << what;
          expect_bytes(result.kept.parameters - (dense - layers) * element,
                       divided_parameters * static_cast<double>(element), what);
        }
      }
  }
}

// The same batches, once.
class Once : public Stage<Batch> {
 public:
  explicit Once(std::vector<Batch> batches) : batches_(std::move(batches)) {}
  std::optional<Batch> next() override {
    return next_ < batches_.size() ? std::optional(batches_[next_++]) : std::nullopt;
  }
  void save(StateWriter&) const override {}
  void load(const StateReader&) override {}

 private:
  std::vector<Batch> batches_;
  size_t next_ = 0;
};

TEST_P(ParallelTraining, ValidationInTheMiddleChangesNothing) {
  const int64_t count = ranks(3);
  // Ranks have different numbers of batches, and the first of several has none.
  const auto held_out = [&](int64_t rank, int64_t of) {
    std::vector<Batch> batches;
    const std::vector<PatchedSequence> all = sequences();
    for (size_t i = 0; i < 7; ++i)
      if (of == 1 || rank == (i % 3 == 0 ? 1 : of - 1))
        batches.push_back(Batch::pack(std::vector<PatchedSequence>{all[i]}).to(device_of(rank)));
    return batches;
  };
  const TrainConfig config = training(2, Compute::kFloat32, /*steps=*/4);
  const auto run = [&](const std::shared_ptr<Group>& group, const Division& division, bool validates) {
    const int64_t rank = group ? group->rank() : 0, of = group ? group->size() : 1;
    const Blt model = new_model(device_of(rank));
    TrainerParts parts;
    parts.model = trainable(model);
    parts.train = share_of(rank, of, config.accumulate, device_of(rank));
    parts.valid = [&] { return std::make_unique<Once>(held_out(rank, of)); };
    parts.group = group;
    parts.parallel = divided(division);
    Trainer trainer(config, std::move(parts));
    std::vector<double> numbers;
    for (int step = 0; step < 4; ++step) {
      numbers.push_back(trainer.train_step().loss.item<double>());
      if (!validates || step != 1) continue;
      const int64_t kept = trainer.parallel().kept().parameters;
      numbers.push_back(trainer.evaluate().value());
      EXPECT_EQ(trainer.parallel().kept().parameters, kept) << "nothing is put together";
    }
    return numbers;
  };
  const std::vector<double> one = run(nullptr, {}, true);
  for (const Division& division : divisions()) {
    std::vector<std::vector<double>> with(static_cast<size_t>(count)), without(static_cast<size_t>(count));
    in_group(count, [&](const std::shared_ptr<Group>& group) {
      const auto rank = static_cast<size_t>(group->rank());
      with[rank] = run(group, division, true);
      without[rank] = run(group, division, false);
    });
    for (size_t r = 0; r < with.size(); ++r) {
      ASSERT_EQ(with[r].size(), one.size()) << name_of(division);
      EXPECT_NEAR(with[r][2], one[2], tolerance(1e-4) * one[2]) << name_of(division);
      EXPECT_EQ(with[r], with[0]) << name_of(division);
      std::vector<double> losses = with[r];
      losses.erase(losses.begin() + 2);
      ASSERT_EQ(losses.size(), without[r].size());
      for (size_t i = 0; i < losses.size(); ++i)
        EXPECT_NEAR(losses[i], without[r][i], repeated() * losses[i]) << name_of(division);
    }
  }
}

TEST_P(ParallelTraining, GradientsMayTravelInBfloat16) {
  const TrainConfig config = training(2, Compute::kFloat32);
  const Result one = train(nullptr, config, {}, {.device = device_of(0)});
  for (const Division& division : divisions()) {
    ParallelConfig parallel = divided(division);
    parallel.gradient_dtype = WireType::kBfloat16;
    const std::vector<Result> many = train_many(3, config, parallel);
    for (const Result& result : many) {
      expect_close(one, result, tolerance(1e-5), tolerance(1e-3),
                   name_of(division) + ", bfloat16 on the wire",
                   /*norms=*/50);
      if (many.size() > 1) {
        EXPECT_GT(std::abs(result.norms[0] - one.norms[0]), 5e-6 * one.norms[0]) << "nothing is rounded";
      }
      for (size_t i = 0; i < result.parameters.size(); ++i)
        EXPECT_TRUE(torch::equal(result.parameters[i], many[0].parameters[i])) << i;
    }
  }
}

TEST_P(ParallelTraining, WithoutOverlapTheResultIsTheSame) {
  const TrainConfig config = training(2, Compute::kFloat32);
  for (const Sharding sharding : kShardings) {
    std::vector<Result> results;
    for (const bool overlap : {true, false}) {
      ParallelConfig parallel = divided({.sharding = sharding});
      parallel.overlap = overlap;
      results.push_back(train_many(2, config, parallel)[0]);
    }
    for (size_t i = 0; i < results[0].losses.size(); ++i)
      EXPECT_NEAR(results[0].losses[i], results[1].losses[i], repeated() * results[0].losses[i])
          << blt::name(sharding) << ", step " << i + 1;
  }
}

// Ranks of this test share a generator of random numbers; those of tests/tools/ranks_test.cpp do not.
TEST(Parallel, FetchedRowsAreDroppedAsThoseOfATableAre) {
  NgramConfig config;
  config.rows = 50;
  config.dropout = 0.3;
  NgramEmbedding embedding(config, 8);
  const at::Tensor bytes = torch::randint(kByteOffset, kVocabulary, {40}, torch::kInt);
  const Segments documents = Segments::from_lengths({15, 25});
  const auto forward = [&] {
    torch::manual_seed(5);
    const at::Tensor out = embedding->forward(bytes, documents);
    out.square().sum().backward();
    return out.detach();
  };
  const at::Tensor from_table = forward();
  embedding->fetch_rows = [table = embedding->ngram_table](const at::Tensor& ids) {
    return table.detach().index_select(0, ids);
  };
  EXPECT_TRUE(torch::allclose(forward(), from_table, 1e-6, 1e-6));
  ASSERT_EQ(embedding->row_gradients.size(), 2u);
  EXPECT_TRUE(torch::equal(embedding->row_gradients[0].ids, embedding->row_gradients[1].ids));
  EXPECT_LT(embedding->row_gradients[0].capacity, 40 * config.hash().num_tables() * 8 / 10)
      << "nothing is left out";
  EXPECT_TRUE(
      torch::allclose(embedding->row_gradients[0].values, embedding->row_gradients[1].values, 1e-5, 1e-6));
}

TEST(Parallel, ACheckpointNamesATensorThatIsAViewOfWhatIsDivided) {
  at::set_num_threads(1);
  const blt_test::TemporaryFolder folder;
  in_group(2, [&](const std::shared_ptr<Group>& group) {
    const Blt model = new_model();
    TrainerParts parts;
    parts.model = trainable(model);
    parts.train = share_of(group->rank(), 2, 1);
    parts.group = group;
    parts.parallel = divided({.tables = TablePlacement::kSharded});
    parts.output = folder.path();
    parts.model_to_save = [model] {
      return ModelToSave{.tensors = {{"rows", model->local_encoder->embedding->ngram_table.detach()}},
                         .write_rest = [](const std::filesystem::path&) {}};
    };
    Trainer trainer(training(1, Compute::kFloat32), std::move(parts));
    trainer.train_step();
    try {
      trainer.save();
      ADD_FAILURE() << "nothing was said";
    } catch (const c10::Error& e) {
      EXPECT_NE(std::string(e.what()).find("rows is a view of a parameter that the ranks divide"),
                std::string::npos)
          << e.what();
    }
  });
}

// A model of which some ranks use a part and others do not, and nobody uses another.
struct PartlyUsedImpl : torch::nn::Module {
  explicit PartlyUsedImpl(bool uses_second) : uses_second_(uses_second) {
    first = register_parameter("first", torch::full({6, 5}, 0.5));
    second = register_parameter("second", torch::full({6, 5}, 0.5));
    unused = register_parameter("unused", torch::full({6, 5}, 0.5));
  }
  bool uses_second_;
  at::Tensor first, second, unused;
};

TEST(Parallel, ParametersThatOnlySomeRanksUseMoveAndUnusedOnesStay) {
  at::set_num_threads(1);
  for (const Sharding sharding : kShardings) {
    std::vector<std::vector<at::Tensor>> after(3);
    in_group(3, [&](const std::shared_ptr<Group>& group) {
      const auto module = std::make_shared<PartlyUsedImpl>(/*uses_second=*/group->rank() == 1);
      const auto parallel = make_parallel({.sharding = sharding, .bucket_mib = 25}, group, *module);
      Optimizer optimizer({}, parallel->parts());
      for (int step = 0; step < 2; ++step) {
        const bool uses = module->uses_second_;
        // The second micro-batch does not use what the first did.
        parallel->backward((module->first.sum() + (uses ? module->second.sum() : at::zeros({}))) / 6,
                           /*last=*/false);
        parallel->backward(module->first.sum() / 6, /*last=*/true);
        const Gradients gradients = parallel->finish_gradients();
        const at::Tensor squares = parallel->squared_norms(gradients, gradient_modules(*module));
        const ClipResult clipped = clip(squares.sum().sqrt().to(at::kFloat), 1e9);
        // 30 elements of 3 ranks * 2 / 6, and 30 of 1 / 6.
        EXPECT_NEAR(clipped.norm.item<double>(), std::sqrt(30 + 30 / 36.0), 1e-5);
        parallel->step(optimizer, gradients, clipped, 1.0);
      }
      after[static_cast<size_t>(group->rank())] = {module->first.detach(), module->second.detach(),
                                                   module->unused.detach()};
    });
    for (const auto& tensors : after) {
      for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(torch::equal(tensors[i], after[0][i])) << i;
      EXPECT_TRUE((tensors[0] < 0.5).all().item<bool>());
      EXPECT_TRUE((tensors[1] < 0.5).all().item<bool>());
      EXPECT_TRUE(torch::equal(tensors[2], torch::full({6, 5}, 0.5))) << "decay alone does not move it";
    }
  }
}

// Hands batches on and keeps what they hold.
class Recorded : public Stage<Batch> {
 public:
  Recorded(std::unique_ptr<Stage<Batch>> input, std::vector<int64_t>& counts)
      : input_(std::move(input)), counts_(counts) {}
  std::optional<Batch> next() override {
    std::optional<Batch> batch = input_->next();
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    const auto ids = batch->targets.accessor<int32_t, 1>();
    for (int64_t i = 0; i < ids.size(0); ++i)
      if (ids[i] >= kByteOffset) ++counts_[static_cast<size_t>(ids[i] - kByteOffset)];
    return batch;
  }
  void save(StateWriter& out) const override { input_->save(out); }
  void load(const StateReader& in) override { input_->load(in); }

 private:
  std::unique_ptr<Stage<Batch>> input_;
  std::vector<int64_t>& counts_;
};

// 3 ranks train, then 2, then 4, then 1: every document is read once and none is left out, in the order that one rank would have.
TEST(Parallel, AnotherNumberOfRanksGoesOnWithTheSameDocuments) {
  at::set_num_threads(1);
  const blt_test::TemporaryFolder folder;
  constexpr int64_t kDocuments = 250, kBytes = 37;  // document i consists of byte i
  std::vector<SourceConfig> sources(1);
  for (int64_t i = 0; i < kDocuments; ++i) {
    const std::string name = fmt::format("{:03}.txt", i);
    folder.write("text/" + name, std::string(kBytes, static_cast<char>(i)));
    sources[0].paths.push_back(folder / ("text/" + name));
  }
  DataConfig data;
  data.sources = sources;
  data.sequence_bytes = 64;
  data.batch_bytes = 90;  // cuts documents
  data.shuffle_sequences = 0;
  EntropyModelConfig shape;
  shape.dim = 16;
  shape.layers = 1;
  shape.heads = 2;
  shape.ffn_dim = 32;
  shape.window = 16;

  std::vector<int64_t> counts(256);
  int64_t steps = 0, ranks_before = 0;
  for (const int64_t ranks : {3, 2, 4, 1}) {
    const int64_t first = steps;
    steps += 12 / ranks;
    in_group(ranks, [&](const std::shared_ptr<Group>& group) {
      const EntropyModel model(shape);
      TrainerParts parts;
      parts.model = trainable(model);
      parts.train = std::make_unique<Recorded>(
          make_byte_loader(data, Pass::kTraining, {.share = {group->rank(), group->size()}}), counts);
      parts.hand_over = hand_over;
      parts.group = group;
      parts.output = folder / "run";
      parts.model_to_save = [] {
        return ModelToSave{.tensors = {}, .write_rest = [](const std::filesystem::path&) {}};
      };
      TrainConfig config = training(1, Compute::kFloat32);
      config.steps = steps;
      Trainer trainer(config, std::move(parts));
      if (first > 0) trainer.resume(folder / fmt::format("run/step_{:08}", first));
      EXPECT_EQ(trainer.step(), first);
      EXPECT_EQ(trainer.run(), Trainer::Outcome::kFinished);
    });
    ranks_before = ranks;
  }
  EXPECT_EQ(ranks_before, 1);
  int64_t furthest = 0, begun = 0;
  for (int64_t i = 0; i < kDocuments; ++i) {
    const int64_t count = counts[static_cast<size_t>(i)];
    EXPECT_LE(count, kBytes) << "document " << i << " was read twice";
    if (count > 0) furthest = i;
    if (count > 0 && count < kBytes) ++begun;
  }
  EXPECT_GT(furthest, 80);
  EXPECT_LE(begun, 1) << "one rank is left, with one document";
  for (int64_t i = 0; i < furthest; ++i)
    EXPECT_EQ(counts[static_cast<size_t>(i)], kBytes) << "document " << i << " of " << furthest;
}

BLT_ON_PROCESSORS(ParallelTraining);

}  // namespace
}  // namespace blt
