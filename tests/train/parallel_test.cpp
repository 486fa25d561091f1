// Several ranks train as one would: the same losses, whatever is divided among them.
#include "blt/train/parallel.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <functional>
#include <map>
#include <mutex>

#include "blt/data/loader.h"
#include "blt/train/trainer.h"
#include "temporary_folder.h"
#include "train/ranks.h"
#include "train/small_model.h"

namespace blt {
namespace {

using testing::in_group;
using testing::RepeatBatches;
using testing::sequence;
using testing::small_config;

constexpr int64_t kSteps = 10;

TrainConfig training(int64_t accumulate, Compute compute) {
  TrainConfig config;
  config.steps = kSteps;
  config.accumulate = accumulate;
  config.compute = compute;
  config.optimizer.learning_rate = 1e-3;
  config.schedule = ConstantSchedule{};
  config.log_every = 1000;
  return config;
}

// Sequences of many lengths, so that ranks have unequal numbers of targets.
std::vector<PatchedSequence> sequences() {
  std::vector<PatchedSequence> result;
  for (size_t i = 0; i < 24; ++i)
    result.push_back(sequence(std::string("abcabc xyxy the quick brown fox").substr(i % 7, 5 + i * 5 % 23)));
  return result;
}

// What a rank reads: every `ranks`-th sequence, in `accumulate` batches a step.
std::unique_ptr<Stage<Batch>> share_of(int64_t rank, int64_t ranks, int64_t accumulate) {
  const std::vector<PatchedSequence> all = sequences();
  std::vector<std::vector<PatchedSequence>> parts(static_cast<size_t>(accumulate));
  for (size_t i = static_cast<size_t>(rank), n = 0; i < all.size(); i += static_cast<size_t>(ranks), ++n)
    parts[n % parts.size()].push_back(all[i]);
  std::vector<Batch> batches;
  for (const auto& part : parts) batches.push_back(Batch::pack(part));
  return std::make_unique<RepeatBatches>(std::move(batches));
}

// A model with the same parameters at every call.
Blt new_model() {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  torch::manual_seed(3);
  return Blt(small_config());
}

constexpr const char* kTable = "local_encoder.embedding.ngram_table";

struct Result {
  std::vector<double> losses, norms;
  std::vector<at::Tensor> parameters;  // those that all ranks have whole
  at::Tensor table;                    // whole, at the first rank
  std::map<std::string, at::Tensor> state;
  int64_t own_state_bytes = 0;
  int64_t table_bytes = 0, table_state_bytes = 0;  // on this rank
  int64_t targets = 0;
};

Result train(const std::shared_ptr<Group>& group, const TrainConfig& config, const ParallelConfig& parallel) {
  const Blt model = new_model();
  TrainerParts parts;
  parts.model = trainable(model);
  const int64_t rank = group ? group->rank() : 0, ranks = group ? group->size() : 1;
  parts.train = share_of(rank, ranks, config.accumulate);
  parts.group = group;
  parts.parallel = parallel;
  Trainer trainer(config, std::move(parts));
  Result result;
  while (trainer.step() < config.steps) {
    const StepStats stats = trainer.train_step();
    result.losses.push_back(stats.loss.item<double>());
    result.norms.push_back(stats.clip.norm.item<double>());
    result.targets = stats.targets;
  }
  result.table_bytes = static_cast<int64_t>(model->local_encoder->embedding->ngram_table.nbytes());
  for (const auto& [name, tensor] : trainer.optimizer().state()) {
    result.own_state_bytes += static_cast<int64_t>(tensor.nbytes());
    if (name.starts_with(kTable) && tensor.dim() > 0)
      result.table_state_bytes += static_cast<int64_t>(tensor.nbytes());
  }
  trainer.parallel().with_whole_parameters([&] {
    for (const auto& item : model->named_parameters())
      if (item.key() == kTable) result.table = item.value().detach().clone();
  });
  for (const auto& item : model->named_parameters())
    if (item.key() != kTable || parallel.tables == TablePlacement::kReplicated)
      result.parameters.push_back(item.value().detach().clone());
  for (const auto& [name, tensor] : trainer.parallel().whole_state(trainer.optimizer()))
    result.state[name] = tensor.clone();
  return result;
}

void expect_close(const Result& one, const Result& many, double first, double later,
                  const std::string& what) {
  ASSERT_EQ(one.losses.size(), many.losses.size());
  EXPECT_EQ(one.targets, many.targets);
  for (size_t i = 0; i < one.losses.size(); ++i) {
    const double tolerance = i == 0 ? first : later;
    EXPECT_NEAR(many.losses[i], one.losses[i], tolerance * one.losses[i]) << what << ", step " << i + 1;
    EXPECT_NEAR(many.norms[i], one.norms[i], 10 * tolerance * one.norms[i]) << what << ", step " << i + 1;
  }
}

using Placement = std::pair<Sharding, TablePlacement>;
constexpr Placement kPlacements[] = {{Sharding::kNone, TablePlacement::kReplicated},
                                     {Sharding::kNone, TablePlacement::kSharded},
                                     {Sharding::kZero1, TablePlacement::kReplicated},
                                     {Sharding::kZero1, TablePlacement::kSharded}};

TEST(Parallel, AnyNumberOfRanksGivesTheLossesOfOne) {
  at::set_num_threads(1);
  for (const Placement& placement : kPlacements)
    for (const int64_t accumulate : {1, 4}) {
      const TrainConfig config = training(accumulate, Compute::kFloat32);
      const Result one = train(nullptr, config, {});
      EXPECT_LT(one.losses.back(), one.losses.front() - 0.1);
      for (const int64_t ranks : {1, 2, 3, 4}) {
        std::vector<Result> many(static_cast<size_t>(ranks));
        in_group(ranks, [&](const std::shared_ptr<Group>& group) {
          // Small buckets, so that there are several.
          many[static_cast<size_t>(group->rank())] = train(
              group, config, {.sharding = placement.first, .tables = placement.second, .bucket_mib = 0.01});
        });
        const std::string what =
            fmt::format("{} ranks, accumulate {}, sharding {}, tables {}", ranks, accumulate,
                        static_cast<int>(placement.first), static_cast<int>(placement.second));
        EXPECT_TRUE(torch::allclose(many[0].table, one.table, 1e-2, 1e-4)) << what;
        for (const Result& result : many) {
          expect_close(one, result, 1e-6, 1e-4, what);
          EXPECT_EQ(result.losses, many[0].losses) << what;
          for (size_t i = 0; i < result.parameters.size(); ++i)
            EXPECT_TRUE(torch::equal(result.parameters[i], many[0].parameters[i]))
                << what << ", parameter " << i;
        }
        // What a checkpoint would hold is the same, whoever had which part of it.
        ASSERT_EQ(one.state.size(), many[0].state.size()) << what;
        for (const auto& [name, tensor] : one.state) {
          ASSERT_EQ(many[0].state.count(name), 1u) << name;
          EXPECT_TRUE(torch::allclose(many[0].state.at(name), tensor, 1e-2, 1e-4)) << what << ", " << name;
        }
      }
    }
}

TEST(Parallel, InBfloat16LossesFollowThoseOfOne) {
  at::set_num_threads(1);
  const TrainConfig config = training(2, Compute::kBfloat16);
  const Result one = train(nullptr, config, {});
  for (const Placement& placement : kPlacements) {
    std::vector<Result> many(3);
    in_group(3, [&](const std::shared_ptr<Group>& group) {
      many[static_cast<size_t>(group->rank())] =
          train(group, config, {.sharding = placement.first, .tables = placement.second, .bucket_mib = 0.01});
    });
    for (const Result& result : many) {
      expect_close(one, result, 2e-3, 1e-2, "bfloat16");
      for (size_t i = 0; i < result.parameters.size(); ++i)
        EXPECT_TRUE(torch::equal(result.parameters[i], many[0].parameters[i])) << i;
    }
    ASSERT_EQ(one.state.size(), many[0].state.size());
    for (const auto& [name, tensor] : one.state) {
      ASSERT_EQ(many[0].state.count(name), 1u) << name;
      EXPECT_EQ(tensor.sizes(), many[0].state.at(name).sizes()) << name;
    }
  }
}

TEST(Parallel, Zero1DividesTheOptimizersStateEqually) {
  at::set_num_threads(1);
  for (const Compute compute : {Compute::kFloat32, Compute::kBfloat16}) {
    TrainConfig config = training(1, compute);
    config.steps = 1;
    const Result one = train(nullptr, config, {});
    for (const int64_t ranks : {2, 3, 4}) {
      std::vector<int64_t> bytes(static_cast<size_t>(ranks));
      in_group(ranks, [&](const std::shared_ptr<Group>& group) {
        bytes[static_cast<size_t>(group->rank())] =
            train(group, config, {.sharding = Sharding::kZero1, .bucket_mib = 0.01}).own_state_bytes;
      });
      const double share = static_cast<double>(one.own_state_bytes) / static_cast<double>(ranks);
      for (const int64_t own : bytes) EXPECT_NEAR(static_cast<double>(own), share, 0.05 * share) << ranks;
    }
  }
}

TEST(Parallel, GradientsMayTravelInBfloat16) {
  at::set_num_threads(1);
  const TrainConfig config = training(2, Compute::kFloat32);
  const Result one = train(nullptr, config, {});
  for (const Placement& placement : kPlacements) {
    std::vector<Result> many(3);
    in_group(3, [&](const std::shared_ptr<Group>& group) {
      many[static_cast<size_t>(group->rank())] = train(group, config,
                                                       {.sharding = placement.first,
                                                        .tables = placement.second,
                                                        .gradient_dtype = WireType::kBfloat16,
                                                        .bucket_mib = 0.01});
    });
    for (const Result& result : many) {
      expect_close(one, result, 1e-5, 1e-3, "bfloat16 on the wire");
      EXPECT_GT(std::abs(result.norms[0] - one.norms[0]), 5e-6 * one.norms[0]) << "nothing is rounded";
      for (size_t i = 0; i < result.parameters.size(); ++i)
        EXPECT_TRUE(torch::equal(result.parameters[i], many[0].parameters[i])) << i;
    }
  }
}

TEST(Parallel, WithoutOverlapTheResultIsTheSame) {
  at::set_num_threads(1);
  const TrainConfig config = training(2, Compute::kFloat32);
  std::vector<Result> results;
  for (const bool overlap : {true, false})
    in_group(2, [&](const std::shared_ptr<Group>& group) {
      const Result result = train(group, config, {.bucket_mib = 0.01, .overlap = overlap});
      if (group->is_first()) results.push_back(result);
    });
  EXPECT_EQ(results[0].losses, results[1].losses);
}

TEST(Parallel, ShardedTablesAndTheirStateAreDividedEqually) {
  at::set_num_threads(1);
  for (const Compute compute : {Compute::kFloat32, Compute::kBfloat16}) {
    TrainConfig config = training(1, compute);
    config.steps = 1;
    const Result one = train(nullptr, config, {});
    for (const int64_t ranks : {2, 3, 4})
      in_group(ranks, [&](const std::shared_ptr<Group>& group) {
        const Result own = train(group, config, {.tables = TablePlacement::kSharded});
        const auto expect_share = [&](int64_t bytes, int64_t of) {
          const double share = static_cast<double>(of) / static_cast<double>(ranks);
          EXPECT_NEAR(static_cast<double>(bytes), share, 0.05 * share) << ranks;
        };
        expect_share(own.table_bytes, one.table_bytes);
        expect_share(own.table_state_bytes, one.table_state_bytes);
      });
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

// Held-out batches, of which ranks have different numbers, and one has none.
class Batches : public Stage<Batch> {
 public:
  explicit Batches(std::vector<Batch> batches) : batches_(std::move(batches)) {}
  std::optional<Batch> next() override {
    if (next_ == batches_.size()) return std::nullopt;
    return batches_[next_++];
  }
  void save(StateWriter&) const override {}
  void load(const StateReader&) override {}

 private:
  std::vector<Batch> batches_;
  size_t next_ = 0;
};

TEST(Parallel, RanksWithUnequalNumbersOfHeldOutBatchesMeasureWhatOneDoes) {
  at::set_num_threads(1);
  const std::vector<PatchedSequence> all = sequences();
  const auto evaluate = [&](const std::shared_ptr<Group>& group, const ParallelConfig& parallel) {
    const Blt model = new_model();
    TrainerParts parts;
    parts.model = trainable(model);
    const int64_t rank = group ? group->rank() : 0, ranks = group ? group->size() : 1;
    parts.train = share_of(rank, ranks, 1);
    parts.valid = [&all, rank, ranks] {  // rank r of 3 has sequences in proportion to r
      std::vector<Batch> batches;
      for (size_t i = 0; i < all.size(); ++i)
        if (ranks == 1 || rank == (i % 3 == 0 ? 1 : 2)) batches.push_back(Batch::pack({all[i]}));
      return std::make_unique<Batches>(std::move(batches));
    };
    parts.group = group;
    parts.parallel = parallel;
    Trainer trainer(training(1, Compute::kFloat32), std::move(parts));
    std::vector<double> bits;
    for (int i = 0; i < 2; ++i) {
      trainer.train_step();
      bits.push_back(trainer.evaluate());
    }
    return bits;
  };
  const std::vector<double> one = evaluate(nullptr, {});
  EXPECT_GT(one[0], 1);
  EXPECT_NE(one[0], one[1]);
  in_group(3, [&](const std::shared_ptr<Group>& group) {
    const std::vector<double> many = evaluate(group, {.tables = TablePlacement::kSharded});
    for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(many[i], one[i], 1e-5 * one[i]);
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
  for (const Sharding sharding : {Sharding::kNone, Sharding::kZero1}) {
    std::vector<std::vector<at::Tensor>> after(3);
    in_group(3, [&](const std::shared_ptr<Group>& group) {
      const auto module = std::make_shared<PartlyUsedImpl>(/*uses_second=*/group->rank() == 1);
      const auto parallel = make_parallel({.sharding = sharding, .bucket_mib = 25}, group, *module);
      AdamW optimizer({}, parallel->parts());
      for (int step = 0; step < 2; ++step) {
        const bool uses = module->uses_second_;
        // The second micro-batch does not use what the first did.
        parallel->backward((module->first.sum() + (uses ? module->second.sum() : at::zeros({}))) / 6,
                           /*last=*/false);
        parallel->backward(module->first.sum() / 6, /*last=*/true);
        const Gradients gradients = parallel->finish_gradients();
        const ClipResult clipped = clip(parallel->norm(gradients), 1e9);
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
      parts.save = [] { return [](const std::filesystem::path&) {}; };
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

}  // namespace
}  // namespace blt
