// Steps whose passes are recorded (train.cuda_graph), with a tape of operators in the place of CUDA's graphs.
#include "train/recorded_pass.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <string>
#include <utility>
#include <vector>

#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "blt/data/filled_batch.h"
#include "blt/model/device.h"
#include "blt/train/gradients.h"
#include "blt/train/run_config.h"
#include "blt/train/trainer.h"
#include "cuda_emulation/kernels.h"
#include "message.h"
#include "train/filled_texts.h"
#include "train/operator_tape.h"
#include "train/small_model.h"

namespace blt {
namespace {

using testing::kSizes;
using testing::OperatorTape;
using testing::quick;
using testing::RepeatBatches;
using testing::small_config;
using testing::TapeRecorder;
using testing::texts;

std::vector<Batch> filled_batches(at::Device device = at::kCPU) {
  std::vector<Batch> batches;
  for (const auto& text : texts()) batches.push_back(fill_batch(text, kSizes).to(device));
  return batches;
}

TrainerParts parts_for(const Blt& model, std::vector<Batch> batches) {
  TrainerParts parts;
  parts.model = trainable(model);
  parts.train = std::make_unique<RepeatBatches>(std::move(batches));
  parts.graph_recorder = [] { return std::make_unique<TapeRecorder>(); };
  return parts;
}

// What steps show and leave.
std::vector<at::Tensor> numbers_of(TrainConfig config, bool is_recorded, int64_t steps,
                                   const Loss& loss = next_id_loss) {
  torch::manual_seed(3);
  const Blt model(small_config());
  config.cuda_graph = is_recorded;
  TrainerParts parts = parts_for(model, filled_batches());
  parts.loss = loss;
  Trainer trainer(config, std::move(parts));
  const emulation::EmulatedCuda cuda;
  std::vector<at::Tensor> numbers;
  for (int64_t i = 0; i < steps; ++i) {
    const StepStats stats = trainer.train_step();
    for (const at::Tensor& number : {stats.loss, stats.byte_nll, stats.module_norms})
      numbers.push_back(number);
  }
  for (const at::Tensor& parameter : model->parameters()) numbers.push_back(parameter.detach().clone());
  return numbers;
}

// The losses of steps on a device, and of its own graphs.
std::vector<double> losses_on(at::Device device, TrainConfig config, bool is_recorded, int64_t steps) {
  torch::manual_seed(3);
  const Blt model(small_config());
  model.ptr()->to(device);
  config.cuda_graph = is_recorded;
  TrainerParts parts = parts_for(model, filled_batches(device));
  parts.graph_recorder = {};
  Trainer trainer(config, std::move(parts));
  std::vector<double> losses;
  for (int64_t i = 0; i < steps; ++i) losses.push_back(trainer.train_step().loss.item<double>());
  return losses;
}

bool equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (!a[i].equal(b[i])) return false;
  return true;
}

std::vector<std::pair<std::string, TrainConfig>> kinds_of_steps() {
  std::vector<std::pair<std::string, TrainConfig>> kinds = {{"the defaults", quick(100)}};
  const auto add = [&](const std::string& name, const auto& change) {
    kinds.emplace_back(name, quick(100));
    change(kinds.back().second);
  };
  add("two batches", [](TrainConfig& config) { config.accumulate = 2; });
  add("bfloat16, lazy tables and more batches later", [](TrainConfig& config) {
    config.compute = Compute::kBfloat16;
    config.optimizer.table_update = TableUpdate::kLazy;
    config.accumulate_from = {{.step = 3, .batches = 3}};
  });
  return kinds;
}

// The host does the same for every batch: the kernels of one, with another's data, are that one's.
TEST(RecordedPass, ReplaysAreTheStepsThatTheyStandFor) {
  for (const auto& [name, config] : kinds_of_steps()) {
    constexpr int64_t kSteps = 5;
    TapeRecorder::recordings = TapeRecorder::warm_ups = TapeRecorder::operators = 0;
    const auto recorded = numbers_of(config, true, kSteps);
    EXPECT_EQ(TapeRecorder::recordings, config.accumulate_at(kSteps) > 1 ? 2u : 1u) << name;
    EXPECT_EQ(TapeRecorder::warm_ups, static_cast<size_t>(2 * config.accumulate_at(0))) << name;
    EXPECT_GT(TapeRecorder::operators, 100u) << name;
    EXPECT_TRUE(equal(recorded, numbers_of(config, false, kSteps))) << name;
  }
}

// They are looked at when later passes have been replayed.
TEST(RecordedPass, ResultsAreNotWrittenOver) {
  torch::manual_seed(3);
  Blt model(small_config());
  const emulation::EmulatedCuda cuda;
  RecordedPass pass(*model, std::make_unique<TapeRecorder>(), [&](const Batch& batch) {
    const LossValue loss = next_id_loss(model->forward(batch), batch);
    loss.sum.backward();
    return PassResult{loss.sum.detach(), loss.byte_nll};
  });
  std::vector<PassResult> results;
  std::vector<double> losses, nlls;
  for (const Batch& batch : filled_batches()) {
    results.push_back(pass.run(batch, /*is_first=*/true));
    losses.push_back(results.back().loss.item<double>());
    nlls.push_back(results.back().byte_nll.item<double>());
    take_gradients(*model);
  }
  for (size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(results[i].loss.item<double>(), losses[i]) << i;
    EXPECT_EQ(results[i].byte_nll.item<double>(), nlls[i]) << i;
  }
}

// Not yet run.
TEST(RecordedPass, CudaGraphsGiveTheLossesWithoutThem) {
  at::Device device = at::kCPU;
  try {
    device = find_device("cuda", "this test");
  } catch (const Error& why) {
    GTEST_SKIP() << why.what();
  }
  for (const auto& [name, config] : kinds_of_steps()) {
    const std::vector<double> losses = losses_on(device, config, true, 10),
                              expected = losses_on(device, config, false, 10);
    const double tolerance = config.compute == Compute::kBfloat16 ? 2e-2 : 1e-4;
    for (size_t i = 0; i < losses.size(); ++i)
      EXPECT_NEAR(losses[i], expected[i], tolerance) << name << ", step " << i + 1;
  }
}

// The test of replays would see what a graph does not repeat.
TEST(RecordedPass, WhatTheHostDecidesStaysAsItWasRecorded) {
  const Loss of_the_host = [](const at::Tensor& logits, const Batch& batch) {
    LossValue loss = next_id_loss(logits, batch);
    loss.sum = loss.sum * (1 + static_cast<double>(batch.num_byte_targets));
    return loss;
  };
  EXPECT_TRUE(
      equal(numbers_of(quick(100), true, 2, of_the_host), numbers_of(quick(100), false, 2, of_the_host)))
      << "these steps are not replayed";
  EXPECT_FALSE(
      equal(numbers_of(quick(100), true, 4, of_the_host), numbers_of(quick(100), false, 4, of_the_host)));
}

TEST(OperatorTape, DoesOperatorsAgainWithOtherNumbers) {
  const at::Tensor x = torch::arange(4.0), y = torch::zeros({4});
  at::Tensor product;
  OperatorTape tape([&] {
    product = x * 3 + 1;
    y.add_(product.slice(0, 1, 3).sum());
  });
  EXPECT_TRUE(y.equal(torch::zeros({4}))) << "recording changes nothing";
  x.fill_(2);
  tape.replay();
  tape.replay();
  EXPECT_TRUE(product.equal(torch::full({4}, 7.0)));
  EXPECT_TRUE(y.equal(torch::full({4}, 28.0)));
  OperatorTape by_data([&] { product = x.masked_select(x > 1); });
  x[0] = 0;
  EXPECT_MESSAGE(by_data.replay(), "its size is the data's");
}

TEST(RecordedPass, NamesWhatAGraphCannotDo) {
  const auto train = [](const BltConfig& model_config, std::vector<Batch> batches, int64_t steps) {
    torch::manual_seed(3);
    const Blt model(model_config);
    TrainConfig config = quick(100);
    config.cuda_graph = true;
    Trainer trainer(config, parts_for(model, std::move(batches)));
    const emulation::EmulatedCuda cuda;
    for (int64_t i = 0; i < steps; ++i) trainer.train_step();
  };
  EXPECT_MESSAGE(train(small_config(), {Batch::pack(texts()[0])}, 1),
                 "train.cuda_graph: the batches have no filler, so each has its own sizes");
  FilledSizes other = kSizes;
  other.ids += 1;
  EXPECT_MESSAGE(train(small_config(), {fill_batch(texts()[0], kSizes), fill_batch(texts()[1], other)}, 2),
                 "a batch of 85 ids, 28 patches and 8 sequences after one of 84, 28 and 8");
  Batch shorter = fill_batch(texts()[1], kSizes);
  shorter.patches.longest = 3;
  EXPECT_MESSAGE(train(small_config(), {fill_batch(texts()[0], kSizes), shorter}, 2),
                 "the same longest segments");
  BltConfig with_dropout = small_config();
  with_dropout.latent_transformer.dropout = 0.1;
  EXPECT_MESSAGE(train(with_dropout, filled_batches(), 3), "set every dropout to 0");
  TrainConfig config = quick(100);
  config.cuda_graph = true;
  TrainerParts parts = parts_for(Blt(small_config()), filled_batches());
  parts.graph_recorder = {};
  EXPECT_THROW(Trainer(config, std::move(parts)), Error);
}

TEST(RecordedPass, ConfigsThatAskForItInVainSaySoWithTheLine) {
  const std::string text = R"(output: run
data: {sources: [{paths: [a.txt]}], sequence_bytes: 64, batch_bytes: 512, batch_patches: 128}
patching: {rule: {kind: space}}
train:
  recompute: ["latent_transformer.layers.*"]
  cuda_graph: true
model: {latent_transformer: {dropout: 0.1}}
)";
  const std::string said = message_of([&] { parse_config<RunConfig>(text, "run.yaml"); });
  for (const char* problem :
       {"run.yaml:6: train.cuda_graph: does not go with recompute",
        "run.yaml:6: train.cuda_graph: is for GPUs: give device: cuda",
        "run.yaml:6: train.cuda_graph: repeats batches of one size: give data.batch_sequences",
        "run.yaml:6: train.cuda_graph: does not go with dropout"})
    EXPECT_NE(said.find(problem), std::string::npos) << said;
}

}  // namespace
}  // namespace blt
