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
    6.052029, 5.689740, 5.252452, 4.798969, 4.299730, 3.920181, 3.538478, 3.244108, 2.935699, 2.745967,
    2.532180, 2.376238, 2.214273, 2.176339, 2.065412, 2.029052, 2.005269, 1.977787, 2.026690, 1.952779};
const std::vector<double> kModel = {5.899592, 5.148146, 4.392781, 3.744377, 3.206529, 2.711382, 2.269682,
                                    1.964530, 1.662901, 1.494985, 1.226689, 1.118266, 0.948527, 0.857631,
                                    0.743698, 0.663614, 0.621174, 0.549180, 0.553456, 0.577441};

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
