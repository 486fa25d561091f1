// A training step on a device: what it waits for, and what a run looks at.
#include "blt/model/device.h"

#include <ATen/ExpandUtils.h>
#include <gtest/gtest.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/model/parameters.h"
#include "blt/train/trainer.h"
#include "cuda_emulation/kernels.h"
#include "file_content.h"
#include "host_reads.h"
#include "message.h"
#include "on_cuda.h"
#include "temporary_folder.h"
#include "train/small_model.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;
using nlohmann::json;
using testing::quick;
using testing::RepeatBatches;
using testing::sequence;
using testing::small_config;

std::vector<Batch> batches_on(at::Device device) {
  return {Batch::pack({sequence("abcabcabcabcabc"), sequence("xyxyxyxyxy")}).to(device),
          Batch::pack({sequence("abcabcabcabcabcabc")}).to(device)};
}

TrainerParts parts_for(const Blt& model) {
  TrainerParts parts;
  parts.model = trainable(model);
  parts.train = std::make_unique<RepeatBatches>(batches_on(model->parameters()[0].device()));
  return parts;
}

// What a step can be asked to do, each with its name.
std::vector<std::pair<std::string, TrainConfig>> kinds_of_steps() {
  std::vector<std::pair<std::string, TrainConfig>> kinds = {{"the defaults", quick(100)}};
  const auto add = [&](const std::string& name, const auto& change) {
    kinds.emplace_back(name, quick(100));
    change(kinds.back().second);
  };
  add("bfloat16", [](TrainConfig& config) { config.compute = Compute::kBfloat16; });
  add("lazy tables", [](TrainConfig& config) { config.optimizer.table_update = TableUpdate::kLazy; });
  add("lazy tables in bfloat16", [](TrainConfig& config) {
    config.compute = Compute::kBfloat16;
    config.optimizer.table_update = TableUpdate::kLazy;
  });
  add("muon", [](TrainConfig& config) { config.optimizer.matrices = RuleKind::kMuon; });
  add("two batches", [](TrainConfig& config) { config.accumulate = 2; });
  add("an average", [](TrainConfig& config) { config.ema = EmaConfig{.decay = 0.99, .tables = true}; });
  add("a guard", [](TrainConfig& config) { config.spike.action = OnSpike::kSkip; });
  add("no clipping", [](TrainConfig& config) { config.max_grad_norm = 0; });
  return kinds;
}

BltConfig with_dropout() {
  BltConfig config = small_config();
  config.local_encoder.dropout = config.latent_transformer.dropout = config.ngram.dropout = 0.1;
  return config;
}

TEST(HostReads, AreSeen) {
  const at::Tensor numbers = torch::ones({3});
  const HostReads reads;
  numbers.sum().item<float>();
  EXPECT_EQ(HostReads::count, 1);
  EXPECT_TRUE(numbers[0].is_nonzero());
  EXPECT_GE(HostReads::count, 2);
  const int64_t before = HostReads::count;
  numbers.index({numbers > 0});
  EXPECT_GT(HostReads::count, before);
}

TEST(Step, ReadsNothing) {
  for (const auto& [name, config] : kinds_of_steps()) {
    torch::manual_seed(3);
    Blt model(with_dropout());
    Trainer trainer(config, parts_for(model));
    const HostReads reads;
    for (int i = 0; i < 3; ++i) trainer.train_step();
    EXPECT_EQ(HostReads::count, 0) << name;
  }
}

// What the CUDA code of operators leaves to each other in a whole step, on the host: memory that nobody wrote, such as the room for rows that were not
// touched, holds NaN there.
TEST(Step, OfTheEmulatedCudaCodeIsThatOfTheCpu) {
  for (const auto& [name, config] : kinds_of_steps()) {
    const auto numbers_of = [&, config = config](bool is_emulated) {
      torch::manual_seed(3);
      const Blt model(small_config());
      Trainer trainer(config, parts_for(model));
      std::optional<emulation::EmulatedCuda> cuda;
      if (is_emulated) cuda.emplace();
      std::vector<double> numbers;
      for (int i = 0; i < 4; ++i) {
        const StepStats stats = trainer.train_step();
        numbers.push_back(stats.loss.item<double>());
        const at::Tensor norms = stats.module_norms.to(at::kDouble).contiguous();
        numbers.insert(numbers.end(), norms.const_data_ptr<double>(),
                       norms.const_data_ptr<double>() + norms.numel());
      }
      if (cuda) {
        EXPECT_GT(cuda->launches(), 0);
      }
      return numbers;
    };
    const std::vector<double> expected = numbers_of(false), numbers = numbers_of(true);
    ASSERT_EQ(numbers.size(), expected.size());
    const double tolerance = config.compute == Compute::kBfloat16 ? 2e-2 : 1e-3;
    for (size_t i = 0; i < numbers.size(); ++i)
      EXPECT_NEAR(numbers[i], expected[i], tolerance * (0.1 + std::abs(expected[i]))) << name << " " << i;
  }
}

// Between log lines, validations and checkpoints, a run looks at nothing either.
TEST(Step, ARunReadsAsMuchWhetherItHasFiveStepsOrTwenty) {
  int64_t counts[2];
  for (const bool is_long : {false, true}) {
    torch::manual_seed(3);
    Blt model(small_config());
    TrainerParts parts = parts_for(model);
    parts.looks_behind = 1;
    Trainer trainer(quick(is_long ? 20 : 5), std::move(parts));
    const HostReads reads;
    trainer.run();
    counts[is_long] = HostReads::count;
  }
  EXPECT_EQ(counts[0], counts[1]);
  EXPECT_GT(counts[0], 0);  // of its last line
}

// The meta device has shapes and no numbers: whatever reads one there throws.
void no_fused_adamw(at::TensorList, at::TensorList, at::TensorList, at::TensorList, at::TensorList,
                    at::TensorList, double, double, double, double, double, bool, bool,
                    const std::optional<at::Tensor>&, const std::optional<at::Tensor>&) {}
// C++ alone has no shapes for these.
at::Tensor& no_unary(const at::Tensor& self, at::Tensor& out) {
  out.resize_(self.sizes());
  return out;
}
at::Tensor& no_binary(const at::Tensor& self, const at::Tensor& other, at::Tensor& out) {
  out.resize_(at::infer_size(self.sizes(), other.sizes()));
  return out;
}
at::Tensor no_index_select(const at::Tensor& self, int64_t dim, const at::Tensor& index) {
  std::vector<int64_t> sizes = self.sizes().vec();
  sizes.at(static_cast<size_t>(dim)) = index.numel();
  return at::empty(sizes, self.options());
}
at::Tensor no_where(const at::Tensor& condition, const at::Tensor& self, const at::Tensor& other) {
  return at::empty(at::infer_size(condition.sizes(), at::infer_size(self.sizes(), other.sizes())),
                   self.options());
}
TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("_fused_adamw_", no_fused_adamw);
  for (const char* name : {"abs.out", "logical_not.out"}) m.impl(name, no_unary);
  m.impl("index_select", no_index_select);
  m.impl("where.self", no_where);
  for (const char* name : {"logical_and.out", "logical_or.out"}) m.impl(name, no_binary);
}

TEST(Step, RunsOnADeviceThatHasNoNumbers) {
  for (const auto& [name, config] : kinds_of_steps()) {
    const MetaParameters shapes_only;
    Blt model(with_dropout());
    ASSERT_TRUE(model->parameters()[0].is_meta());
    Trainer trainer(config, parts_for(model));
    EXPECT_NO_THROW(for (int i = 0; i < 3; ++i) trainer.train_step()) << name;
  }
  EXPECT_ANY_THROW(torch::ones({}, at::kMeta).item<float>());
}

// Of rows of metrics.jsonl, what does not depend on the clock.
std::vector<json> numbers_in(const std::filesystem::path& metrics) {
  std::vector<json> rows;
  std::istringstream lines(content_of(metrics));
  for (std::string line; std::getline(lines, line);) {
    const json row = json::parse(line);
    json kept;
    for (const char* key : {"step", "loss", "gradient_norm", "skipped", "skipped_steps", "documents"})
      if (row.contains(key)) kept[key] = row[key];
    rows.push_back(kept);
  }
  return rows;
}

// A trainer whose loss is no number in these steps.
Trainer broken_at(const Blt& model, const TrainConfig& config, int64_t looks_behind,
                  const std::filesystem::path& output, std::set<int> steps) {
  TrainerParts parts = parts_for(model);
  parts.looks_behind = looks_behind;
  parts.output = output;
  PatchedSequence first = sequence("abcabcabc"), second = sequence("xyxy");
  first.place = {.source = 0, .file = 0, .line = 1};
  second.place = {.source = 0, .file = 0, .line = 2};
  parts.train = std::make_unique<RepeatBatches>(std::vector{Batch::pack({first}), Batch::pack({second})});
  parts.name_text = [](const TextPlace& place) { return "line " + std::to_string(place.line); };
  parts.model_to_save = [] {
    return ModelToSave{.tensors = {}, .write_rest = [](const std::filesystem::path&) {}};
  };
  parts.loss = [steps = std::move(steps), calls = 0](const at::Tensor& logits, const Batch& batch) mutable {
    LossValue value = next_id_loss(logits, batch);
    if (steps.count(++calls) != 0) value.sum = value.sum * std::numeric_limits<double>::quiet_NaN();
    return value;
  };
  return Trainer(config, std::move(parts));
}

TEST(LooksBehind, ChangeNoNumberOfARunThatSkipsSteps) {
  std::vector<json> rows[2];
  std::vector<at::Tensor> weights[2];
  for (const int64_t behind : {0, 1}) {
    torch::manual_seed(3);
    Blt model(small_config());
    const TemporaryFolder folder;
    TrainConfig config = quick(12);
    config.log_every = 5;
    config.checkpoint_every = 4;
    Trainer trainer = broken_at(model, config, behind, folder.path(), {2, 3, 5, 8, 11});
    EXPECT_EQ(trainer.run(), Trainer::Outcome::kFinished);
    EXPECT_EQ(trainer.skipped(), 5);
    rows[behind] = numbers_in(folder / "metrics.jsonl");
    for (const at::Tensor& parameter : model->parameters()) weights[behind].push_back(parameter.detach());
  }
  EXPECT_EQ(rows[0], rows[1]);
  EXPECT_EQ(rows[1][0], json::parse(R"({"step": 2, "skipped": "nonfinite", "documents": ["line 2"]})"));
  for (size_t i = 0; i < weights[0].size(); ++i) EXPECT_TRUE(torch::equal(weights[0][i], weights[1][i])) << i;
}

TrainConfig stopping() {
  TrainConfig config = quick(12);
  config.on_nonfinite = OnNonfinite::kStop;
  return config;
}

TEST(LooksBehind, StopAStepLaterWithTheStepNamedAndWhatWasTrainedSaved) {
  for (const int64_t behind : {0, 1}) {
    torch::manual_seed(3);
    Blt model(small_config());
    const TemporaryFolder folder;
    Trainer trainer = broken_at(model, stopping(), behind, folder.path(), {4});
    EXPECT_MESSAGE(trainer.run(), "step 4: the loss is not finite (nan); it read line 2");
    EXPECT_EQ(trainer.step(), 4 + behind);
    const json state = json::parse(content_of(folder / "latest" / "trainer_state.json"));
    EXPECT_EQ(state["step"], 4 + behind);
    EXPECT_EQ(state["skipped"], 1);
    EXPECT_EQ(state["skipped_in_row"], behind == 0 ? 1 : 0);  // the step after it was taken
  }
}

TEST(LooksBehind, CountStepsThatWereSkippedMeanwhile) {
  torch::manual_seed(3);
  Blt model(small_config());
  const TemporaryFolder folder;
  Trainer trainer = broken_at(model, stopping(), 1, folder.path(), {4, 5});
  EXPECT_MESSAGE(trainer.run(), "step 4: the loss is not finite");
  const json state = json::parse(content_of(folder / "latest" / "trainer_state.json"));
  EXPECT_EQ(state["step"], 5);
  EXPECT_EQ(state["skipped"], 2);
  EXPECT_EQ(state["skipped_in_row"], 2);
}

TEST(Device, HasANameThatUsersKnow) {
  for (const char* name : {"cpu", "cuda", "cuda:0", "cuda:12"}) EXPECT_TRUE(is_device_name(name)) << name;
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:123", "CUDA", "cpu:0", "cuda: 1"})
    EXPECT_FALSE(is_device_name(name)) << name;
  EXPECT_EQ(find_device("cpu", "device: cpu", 3), at::Device(at::kCPU));
  EXPECT_MESSAGE(find_device("gpu", "device: gpu"), "device: gpu: must be cpu, cuda");
}

TEST(Device, ThatIsNotThereIsOneClearError) {
#ifdef BLT_HAS_CUDA
  const char* none = "device: cuda: no CUDA device is to be seen; compute on the cpu, or look at nvidia-smi";
#else
  const char* none = "device: cuda: this libblt was built without CUDA kernels; compute on the cpu, or";
#endif
  if (torch::cuda::is_available() && message_of([] { find_device("cuda", ""); }) == "(nothing was thrown)")
    EXPECT_MESSAGE(find_device("cuda:99", "device: cuda:99"), "device: cuda:99: there is no cuda:99");
  else
    EXPECT_MESSAGE(find_device("cuda", "device: cuda"), none);
}

// None of these has run yet.
class OnCuda : public testing::OnDevice {
 protected:
  Blt model() const {
    torch::manual_seed(3);
    Blt result(with_dropout());
    result->to(device_);
    return result;
  }
};

TEST_F(OnCuda, LossesFollowTheCpus) {
  for (const auto& [name, config] : kinds_of_steps()) {
    torch::manual_seed(3);
    Blt here(with_dropout());
    Trainer on_cpu(config, parts_for(here)), on_device(config, parts_for(model()));
    const double tolerance = config.compute == Compute::kBfloat16 ? 0.05 : 2e-3;
    for (int i = 0; i < 10; ++i)
      EXPECT_NEAR(on_device.train_step().loss.item<double>(), on_cpu.train_step().loss.item<double>(),
                  tolerance)
          << name << ", step " << i + 1;
  }
}

TEST_F(OnCuda, ARunSkipsAndStopsAsOnTheCpu) {
  const TemporaryFolder folder;
  TrainerParts parts = parts_for(model());
  parts.output = folder.path();
  parts.loss = [calls = 0](const at::Tensor& logits, const Batch& batch) mutable {
    LossValue value = next_id_loss(logits, batch);
    if (++calls == 4) value.sum = value.sum * std::numeric_limits<double>::quiet_NaN();
    return value;
  };
  Trainer trainer(stopping(), std::move(parts));
  EXPECT_MESSAGE(trainer.run(), "step 4: the loss is not finite");
  EXPECT_EQ(trainer.step(), 5);
}

#ifdef BLT_HAS_CUDA
TEST_F(OnCuda, AStepDoesNotSynchronise) {
  for (const auto& [name, config] : kinds_of_steps()) {
    Trainer trainer(config, parts_for(model()));
    trainer.train_step();  // makes the optimizer's state
    trainer.train_step();
    const SynchronisationIsAnError no_waiting;
    EXPECT_NO_THROW(for (int i = 0; i < 3; ++i) trainer.train_step()) << name;
  }
}
#endif

}  // namespace
}  // namespace blt
