// A short run of both models gives the losses that it gave when they were written down: a change that should not move numbers does not.
// One that should writes the new ones here, which a failure prints, and says why.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "blt/base/config_io.h"
#include "blt/train/run.h"
#include "temporary_folder.h"

namespace blt {
namespace {

// Instruction sets, of libblt's kernels and of LibTorch's products, differ by 1e-6 here; initial parameters, the order of the data, a patch
// or a learning rate that were off differ in the second digit.
constexpr double kTolerance = 1e-4;

constexpr const char* kRun = R"(
output: OUT
seed: 3
data:
  sources: [{paths: [TEXT]}]
  sequence_bytes: 96
  batch_bytes: 384
  shuffle_sequences: 16
  seed: 5
entropy_model:
  kind: train
  model: {dim: 32, layers: 2, heads: 2, window: 32, ffn_dim: 64, dropout: 0.1}
  train: {steps: 20, log_every: 1, optimizer: {learning_rate: 0.01}, schedule: {kind: cosine, warmup: 5}}
patching: {rule: {kind: entropy, mean_patch_bytes: 4}, max_patch_length: 12}
model:
  local_dim: 32
  window: 48
  ngram: {sizes: [3, 4], rows: 500}
  local_encoder: {layers: 1, heads: 2, ffn_dim: 64}
  latent_transformer: {dim: 64, layers: 2, heads: 2, ffn_dim: 128, dropout: 0.1}
  local_decoder: {layers: 2, heads: 2, ffn_dim: 64}
train: {steps: 20, accumulate: 2, log_every: 1, optimizer: {learning_rate: 0.01}, schedule: {kind: wsd, warmup: 5}}
)";

const std::vector<double> kEntropyModel = {
    5.986827, 5.711311, 5.242248, 4.782953, 4.330802, 3.932570, 3.583649, 3.238338, 2.938862, 2.759045,
    2.604520, 2.386174, 2.264527, 2.224803, 2.144013, 2.105000, 2.044888, 2.029656, 2.078453, 2.018641};
const std::vector<double> kModel = {5.931815, 5.155284, 4.403176, 3.736458, 3.200170, 2.704524, 2.269794,
                                    1.960152, 1.657858, 1.514127, 1.227238, 1.125242, 0.965715, 0.863896,
                                    0.738231, 0.677341, 0.619831, 0.567626, 0.558249, 0.574889};

std::vector<double> losses(const std::filesystem::path& metrics) {
  std::vector<double> result;
  std::ifstream file(metrics);
  for (std::string line; std::getline(file, line);)
    if (const auto row = nlohmann::json::parse(line); row.contains("loss")) result.push_back(row["loss"]);
  return result;
}

void expect_losses(const std::vector<double>& actual, const std::vector<double>& recorded) {
  std::string text;
  for (const double loss : actual) text += (text.empty() ? "" : ", ") + std::to_string(loss);
  ASSERT_EQ(actual.size(), recorded.size()) << text;
  for (size_t i = 0; i < actual.size(); ++i)
    EXPECT_NEAR(actual[i], recorded[i], kTolerance) << "step " << i + 1 << " of {" << text << "}";
}

TEST(RecordedLosses, OfAShortRunOfBothModels) {
  const blt_test::TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 300; ++i)
    text +=
        "In line " + std::to_string(i * 7919 % 1000) + (i % 3 == 0 ? " the text ends.\n" : " it goes on, ");
  const auto file = folder.write("text.txt", text);
  std::string settings = kRun;
  settings.replace(settings.find("OUT"), 3, (folder / "out").string());
  settings.replace(settings.find("TEXT"), 4, file.string());
  ASSERT_EQ(run(parse_config<RunConfig>(settings, "run.yaml")), Trainer::Outcome::kFinished);
  expect_losses(losses(folder / "out/entropy_model/metrics.jsonl"), kEntropyModel);
  expect_losses(losses(folder / "out/metrics.jsonl"), kModel);
}

}  // namespace
}  // namespace blt
