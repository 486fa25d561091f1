// A dry run says what a real one takes: memory against the tensors that LibTorch allocates in real steps, traffic against what ranks send.
#include "blt/train/dry_run.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bench/shapes.h"
#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/model/parameters.h"
#include "blt/model/report.h"
#include "blt/train/trainer.h"
#include "message.h"
#include "train/ranks.h"
#include "train/small_model.h"

namespace blt {
namespace {

using testing::in_group;
using testing::RepeatBatches;

const std::filesystem::path kRoot = std::filesystem::path(BLT_GOLDEN_DIR).parent_path().parent_path();

// The bytes of tensors that this thread allocates while one lives, whoever frees them: the threads of transfers do too.
class AllocatedBytes {
 public:
  AllocatedBytes() : before_(std::exchange(counting, std::make_shared<Count>())) {
    static CountingAllocator allocator;
    c10::SetCPUAllocator(&allocator);
  }
  ~AllocatedBytes() { counting = before_; }
  AllocatedBytes(const AllocatedBytes&) = delete;
  AllocatedBytes& operator=(const AllocatedBytes&) = delete;

  int64_t live() const { return counting->live; }
  int64_t peak() const { return counting->peak; }
  void restart_peak() { counting->peak = counting->live.load(); }

 private:
  struct Count {
    std::atomic<int64_t> live = 0;
    int64_t peak = 0;  // only the thread that allocates writes it
  };

  class CountingAllocator : public c10::Allocator {
   public:
    c10::DataPtr allocate(size_t bytes) override {
      void* data = c10::GetDefaultCPUAllocator()->raw_allocate(bytes);
      if (data != nullptr && counting != nullptr) {
        counting->live += static_cast<int64_t>(bytes);
        counting->peak = std::max<int64_t>(counting->peak, counting->live);
        const std::lock_guard lock(blocks().mutex);
        blocks().of[data] = {counting, static_cast<int64_t>(bytes)};
      }
      return {data, data, &release, c10::DeviceType::CPU};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &release; }
    void copy_data(void* to, const void* from, size_t bytes) const override {
      default_copy_data(to, from, bytes);
    }

   private:
    struct Blocks {
      std::mutex mutex;
      std::unordered_map<void*, std::pair<std::shared_ptr<Count>, int64_t>> of;
    };
    // For ever: tensors are freed when the process ends, too.
    static Blocks& blocks() {
      static auto* blocks = new Blocks;
      return *blocks;
    }
    static void release(void* data) {
      {
        const std::lock_guard lock(blocks().mutex);
        if (const auto block = blocks().of.extract(data)) {
          const auto& [count, bytes] = block.mapped();
          count->live -= bytes;
        }
      }
      c10::GetDefaultCPUAllocator()->raw_deallocate(data);
    }
  };

  static inline thread_local std::shared_ptr<Count> counting;
  std::shared_ptr<Count> before_;
};

struct Real {
  double held = 0;  // between steps
  double peak = 0;
};

// The second step of a real training: then the optimizer has its state.
Real train(const RunConfig& config, int64_t rows, int64_t bytes,
           const std::shared_ptr<Group>& group = nullptr) {
  at::set_num_threads(1);
  const Batch batch = bench::batch(
      read_file(kRoot / "docs/architecture.md") + read_file(kRoot / "docs/formats.md"), rows, bytes, 4.5);
  AllocatedBytes allocated;
  Blt model(*config.model);
  TrainerParts parts;
  parts.model = trainable(model);
  parts.train = std::make_unique<RepeatBatches>(std::vector<Batch>{batch});
  parts.group = group;
  parts.parallel = config.parallel;
  Trainer trainer(config.train, std::move(parts));
  trainer.train_step();
  Real real{.held = static_cast<double>(allocated.live())};
  allocated.restart_peak();
  trainer.train_step();
  real.peak = static_cast<double>(allocated.peak());
  return real;
}

RunConfig run_of(const BltConfig& model, int64_t rows, int64_t bytes) {
  RunConfig config;
  config.model = model;
  config.patching.rule = EntropyPatching{};
  config.data.sequence_bytes = bytes - 1;  // and BOS
  config.data.batch_bytes = rows * bytes;
  return config;
}

void expect_memory(const RunConfig& config, int64_t rows, int64_t bytes, const std::string& what,
                   double tolerance = 0.05) {
  const DryRun plan = dry_run(config, {});
  const Real real = train(config, rows, bytes);
  EXPECT_LT(real.held, real.peak) << what;
  EXPECT_NEAR(plan.step_bytes, real.peak, tolerance * real.peak) << what << "\n" << plan.page;
}

TEST(DryRun, SaysTheMemoryOfARealStep) {
  expect_memory(run_of(bench::shape("tiny"), 4, 1024), 4, 1024, "tiny, 4 x 1024");
  expect_memory(run_of(bench::shape("tiny"), 1, 4096), 1, 4096, "tiny, 1 x 4096");
  expect_memory(run_of(bench::shape("tiny"), 1, 256), 1, 256, "tiny, 1 x 256");
  expect_memory(run_of(bench::shape("small"), 2, 1024), 2, 1024, "small, 2 x 1024");
  auto quickstart = load_config<RunConfig>(kRoot / "configs/quickstart.yaml");
  quickstart.entropy_model.reset();
  expect_memory(quickstart, 4, 1024, "quickstart");
}

TEST(DryRun, SaysTheMemoryOfSeveralMicroBatchesOfBfloat16AndOfDropout) {
  RunConfig config = run_of(bench::shape("tiny"), 2, 1024);
  config.train.accumulate = 3;
  expect_memory(config, 2, 1024, "accumulated");
  config.train.compute = Compute::kBfloat16;
  expect_memory(config, 2, 1024, "accumulated in bfloat16");
  config.train.accumulate = 1;
  expect_memory(config, 2, 1024, "bfloat16");
  for (const auto& [rows, bytes] : {std::pair<int64_t, int64_t>{4, 1024}, {1, 4096}, {1, 256}}) {
    RunConfig other = run_of(bench::shape("tiny"), rows, bytes);
    other.train.compute = Compute::kBfloat16;
    expect_memory(other, rows, bytes, fmt::format("tiny in bfloat16, {} x {}", rows, bytes));
  }
  RunConfig larger = run_of(bench::shape("small"), 2, 1024);
  larger.train.compute = Compute::kBfloat16;
  expect_memory(larger, 2, 1024, "small in bfloat16");
  config.train.compute = Compute::kFloat32;
  config.model->local_decoder.dropout = config.model->latent_transformer.dropout = 0.1;
  config.train.optimizer.groups = {{.pattern = "local_encoder.*", .frozen = true}};
  expect_memory(config, 2, 1024, "dropout and a frozen encoder");
  config.train.optimizer.matrices = RuleKind::kMuon;
  expect_memory(config, 2, 1024, "dropout, a frozen encoder and Muon");
}

// With next to no text a step takes the most where matrices are made orthogonal.
TEST(DryRun, SaysTheMemoryOfMuonsUpdate) {
  RunConfig config = run_of(bench::shape("tiny"), 1, 32);
  const double without = dry_run(config, {}).step_bytes;
  config.train.optimizer.matrices = RuleKind::kMuon;
  EXPECT_NE(dry_run(config, {}).step_bytes, without);
  expect_memory(config, 1, 32, "Muon");
}

TEST(DryRun, SaysTheMemoryOfTheTablesState) {
  RunConfig config = run_of(bench::shape("tiny"), 2, 1024);
  const double whole = dry_run(config, {}).step_bytes;
  const double elements = 6.0 * 5000 * 64, rows = 6.0 * 5000;
  const std::pair<OptimizerConfig, double> states[] = {
      {{.table_moments = TableMoments::kBfloat16}, 4 * elements},
      {{.table_second_moment = SecondMoment::kRow}, 4 * elements - 4 * rows},
      {{.table_moments = TableMoments::kBfloat16, .table_second_moment = SecondMoment::kRow},
       6 * elements - 4 * rows}};
  for (const auto& [optimizer, saved] : states) {
    config.train.optimizer = optimizer;
    const std::string what =
        fmt::format("{}, {}", name(optimizer.table_moments), name(optimizer.table_second_moment));
    EXPECT_DOUBLE_EQ(whole - dry_run(config, {}).step_bytes, saved) << what;
    expect_memory(config, 2, 1024, what, 0.03);
  }
  config.train.compute = Compute::kBfloat16;
  expect_memory(config, 2, 1024, "both, in bfloat16");
}

TEST(DryRun, SaysTheMemoryOfLayersThatAreComputedAgain) {
  RunConfig config = run_of(bench::shape("tiny"), 2, 1024);
  const double kept = dry_run(config, {}).step_bytes;
  for (const char* pattern : {"latent_transformer.layers.*", "*"}) {
    config.train.recompute = {pattern};
    config.train.compute = Compute::kFloat32;
    expect_memory(config, 2, 1024, pattern);
    EXPECT_LT(dry_run(config, {}).step_bytes, kept) << pattern;
    config.train.compute = Compute::kBfloat16;
    expect_memory(config, 2, 1024, std::string(pattern) + " in bfloat16");
  }
}

// The most and the least of what two ranks allocate: each is a thread here, and counts its own.
TEST(DryRun, SaysTheMemoryOfARealStepOfTwoRanks) {
  const auto expect = [](const ParallelConfig& parallel, const OptimizerConfig& optimizer = {},
                         Compute compute = Compute::kFloat32) {
    RunConfig config = run_of(bench::shape("tiny"), 2, 1024);
    config.train.compute = compute;
    config.parallel = parallel;
    config.train.optimizer = optimizer;
    const DryRun plan = dry_run(config, {.world = 2});
    in_group(2, [&](const std::shared_ptr<Group>& group) {
      const Real real = train(config, 2, 1024, group);
      EXPECT_LT(real.held, real.peak);
      EXPECT_NEAR(plan.step_bytes, real.peak, 0.1 * real.peak)
          << name(parallel.sharding) << ", tables " << name(parallel.tables) << "\n"
          << plan.page;
    });
  };
  for (const Sharding sharding : {Sharding::kNone, Sharding::kZero1, Sharding::kZero2, Sharding::kZero3})
    for (const TablePlacement tables : {TablePlacement::kReplicated, TablePlacement::kSharded})
      for (const RuleKind rule : {RuleKind::kAdamW, RuleKind::kMuon})
        expect({.sharding = sharding, .tables = tables}, {.matrices = rule});
  for (const Sharding sharding : {Sharding::kZero1, Sharding::kZero3})
    expect({.sharding = sharding}, {}, Compute::kBfloat16);
  expect({.tables = TablePlacement::kSharded},
         {.table_moments = TableMoments::kBfloat16, .table_second_moment = SecondMoment::kRow});
}

// Counts what a rank receives, as rings do the transfers.
class CountedGroup : public Group {
 public:
  explicit CountedGroup(std::shared_ptr<Group> group)
      : Group(group->rank(), group->size()), group_(std::move(group)) {}
  Pending sum(const at::Tensor& tensor, std::string_view what) override {
    return count(what, 2 * others() * bytes(tensor)), group_->sum(tensor, what);
  }
  Pending broadcast(const at::Tensor& tensor, int64_t root, std::string_view what) override {
    return count(what, root == rank() ? 0 : bytes(tensor)), group_->broadcast(tensor, root, what);
  }
  Pending reduce_scatter(const at::Tensor& output, const at::Tensor& input, std::string_view what) override {
    return count(what, others() * bytes(input)), group_->reduce_scatter(output, input, what);
  }
  Pending all_gather(const at::Tensor& output, const at::Tensor& input, std::string_view what) override {
    return count(what, others() * bytes(output)), group_->all_gather(output, input, what);
  }
  Pending all_to_all(const at::Tensor& output, const at::Tensor& input, std::string_view what) override {
    return count(what, others() * bytes(output)), group_->all_to_all(output, input, what);
  }
  Pending all_to_all(const at::Tensor& output, const at::Tensor& input, const ExchangeCounts& counts,
                     std::string_view what) override {
    const int64_t from_others = counts.total_received() - counts.received[static_cast<size_t>(rank())];
    const double row = output.size(0) == 0 ? 0 : bytes(output) / static_cast<double>(output.size(0));
    return count(what, static_cast<double>(from_others) * row),
           group_->all_to_all(output, input, counts, what);
  }
  bool claim_failure(const std::string& message) override { return group_->claim_failure(message); }

  double received = 0, rows_received = 0;

 private:
  double others() const { return static_cast<double>(size() - 1) / static_cast<double>(size()); }
  static double bytes(const at::Tensor& tensor) { return static_cast<double>(tensor.nbytes()); }
  void count(std::string_view what, double bytes) {
    const bool rows = what.find("table rows") != what.npos || what.find("table look-ups") != what.npos;
    (rows ? rows_received : received) += bytes;
  }
  std::shared_ptr<Group> group_;
};

TEST(DryRun, SaysWhatRanksSend) {
  at::set_num_threads(1);
  const auto expect_traffic = [](const ParallelConfig& parallel, Compute compute,
                                 RuleKind matrices = RuleKind::kAdamW) {
    RunConfig config = run_of(bench::shape("tiny"), 1, 256);
    config.train.compute = compute;
    config.train.accumulate = 2;
    config.train.optimizer.matrices = matrices;
    config.parallel = parallel;
    const DryRun plan = dry_run(config, {.world = 3});
    const std::string what =
        fmt::format("{}, {} in {}\n{}", name(parallel.sharding), name(matrices), name(compute), plan.page);
    std::vector<double> beside_rows(3);  // what each rank receives besides rows of tables
    // From the two others, a row for each look-up: gradients of both batches; where tables are sharded, a third of that from each, and rows.
    const double wire = parallel.gradient_dtype == WireType::kBfloat16 ? 2 : 4,
                 parameter = compute == Compute::kBfloat16 ? 2 : 4;
    const double looked_up = 2 * 256 * 6, gradients = looked_up * (wire * 64 + 4);
    const double rows = parallel.tables == TablePlacement::kSharded
                            ? 2.0 / 3 * (gradients + looked_up * (parameter * 64 + 4))
                            : 2 * gradients;
    in_group(3, [&](const std::shared_ptr<Group>& group) {
      const auto counted = std::make_shared<CountedGroup>(group);
      Blt model(*config.model);
      TrainerParts parts;
      parts.model = trainable(model);
      parts.train =
          std::make_unique<RepeatBatches>(std::vector<Batch>{bench::batch(bench::kText, 1, 256, 4.5)});
      parts.group = counted;
      parts.parallel = config.parallel;
      Trainer trainer(config.train, std::move(parts));
      trainer.train_step();  // leaves parameters on their way, which the next one has of it
      counted->received = counted->rows_received = 0;
      trainer.train_step();
      beside_rows[static_cast<size_t>(group->rank())] = counted->received;
      EXPECT_LE(counted->rows_received, rows);
      EXPECT_GT(counted->rows_received, rows / 8);
    });
    // Ranks have their share of a table's rows, which need not be equal; counts and losses travel too. Of matrices, ranks have parts of any size.
    const auto [least, most] = std::minmax_element(beside_rows.begin(), beside_rows.end());
    EXPECT_NEAR(plan.traffic_bytes - rows, *most, 0.01 * *most) << what;
    if (matrices == RuleKind::kAdamW) {
      EXPECT_NEAR(*least, *most, 0.01 * *most) << what;
    }
  };
  for (const Sharding sharding : {Sharding::kNone, Sharding::kZero1, Sharding::kZero2, Sharding::kZero3}) {
    expect_traffic({.sharding = sharding}, Compute::kFloat32);
    expect_traffic({.sharding = sharding, .tables = TablePlacement::kSharded}, Compute::kBfloat16);
  }
  for (const Sharding sharding : {Sharding::kZero1, Sharding::kZero2, Sharding::kZero3})
    for (const double bucket_mib : {25.0, 0.1})
      expect_traffic({.sharding = sharding, .bucket_mib = bucket_mib}, Compute::kBfloat16, RuleKind::kMuon);
  expect_traffic({.gradient_dtype = WireType::kBfloat16}, Compute::kFloat32);
  expect_traffic({.sharding = Sharding::kZero2, .gradient_dtype = WireType::kBfloat16}, Compute::kFloat32);
}

TEST(DryRun, SaysWhetherItFits) {
  const RunConfig config = run_of(bench::shape("small"), 4, 1024);
  const DryRun plan = dry_run(config, {.memory_gib = 100});
  EXPECT_TRUE(plan.fits);
  EXPECT_FALSE(dry_run(config, {.memory_gib = 1}).fits);
  EXPECT_NE(plan.page.find("no step time"), std::string::npos) << plan.page;
  const std::string timed = dry_run(config, {.world = 8, .tflops = 100.0, .bandwidth_gbps = 10.0}).page;
  EXPECT_EQ(timed.find("no step time"), std::string::npos) << timed;
  EXPECT_NE(timed.find("transfers at 10 Gbit/s"), std::string::npos) << timed;
  // ZeRO-1 divides the optimizer's state.
  RunConfig divided = config;
  divided.parallel.sharding = Sharding::kZero1;
  const double state = 8 * 103e6;
  EXPECT_NEAR(dry_run(config, {.world = 8}).step_bytes - dry_run(divided, {.world = 8}).step_bytes,
              state * 7 / 8, 0.02 * state);
  RunConfig averaged = config;
  averaged.train.ema = EmaConfig{};
  const MetaParameters shapes_only;
  const ParameterReport parameters = parameter_report(*Blt(*config.model));
  EXPECT_DOUBLE_EQ(dry_run(averaged, {}).step_bytes - dry_run(config, {}).step_bytes,
                   4.0 * static_cast<double>(parameters.total - parameters.ngram_tables));
  RunConfig recorded = config;
  recorded.train.cuda_graph = true;
  EXPECT_NO_THROW(dry_run(recorded, {}));
  EXPECT_MESSAGE(dry_run(recorded, {.world = 8}), "train.cuda_graph: is for one rank");
  RunConfig nothing;
  nothing.patching.rule = SpacePatching{};
  EXPECT_THROW(dry_run(nothing, {}), Error);
}

// A page of the largest config takes moments and no memory: the models are shapes.
TEST(DryRun, OfThePapersSizesAllocatesNothing) {
  const AllocatedBytes allocated;
  const auto config = load_config<RunConfig>(kRoot / "configs/blt/8b.yaml");
  const DryRun plan = dry_run(config, {.world = 64});
  EXPECT_GT(plan.step_bytes, 100e9) << plan.page;
  EXPECT_LT(allocated.peak(), 16 << 20);
}

}  // namespace
}  // namespace blt
