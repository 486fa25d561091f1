// blt_data as a user calls it.
#include <csignal>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tools/run_tool.h"

namespace blt {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

class BltData : public ToolTest {
 protected:
  BltData() {
    std::string lines;
    for (int i = 0; i < 200; ++i) {
      std::string text;
      for (int w = 0; w <= i % 20; ++w) text += "word" + std::to_string(i * 31 % 97) + " ";
      lines += "{\"text\": \"" + text + "\"}\n";
    }
    write_content(folder_ / "train.jsonl", lines);
    write_content(folder_ / "run.yaml", R"(
output: out
data:
  sources: [{paths: [train.jsonl]}]
  sequence_bytes: 128
  batch_bytes: 512
  threads: 2
entropy_model:
  kind: train
  model: {dim: 16, layers: 1, heads: 2, window: 16}
  train: {steps: 2}
patching: {rule: {kind: entropy, mean_patch_bytes: 4}}
model:
  local_dim: 16
  ngram: {sizes: [3], rows: 100}
  local_encoder: {layers: 1, heads: 2}
  latent_transformer: {dim: 32, layers: 1, heads: 2}
  local_decoder: {layers: 1, heads: 2}
train: {steps: 2, accumulate: 2, log_every: 1}
)");
  }
  ToolResult data(const std::string& command, const std::string& more = "") const {
    return run("blt_data", command + " " + (folder_ / "run.yaml").string() + " " + more);
  }
  // With the entropy model that it trains the first time.
  std::string with_model() const {
    const fs::path model = folder_ / "out/entropy_model/latest";
    if (!fs::exists(model)) {
      EXPECT_EQ(run("blt_train", (folder_ / "run.yaml").string() + " model=null").exit_code, 0);
    }
    return "--model " + model.string() + " ";
  }
  std::string file(const std::string& name) const { return (folder_ / name).string(); }
};

TEST_F(BltData, StatsCountDocumentsAndPatches) {
  const ToolResult result = data("stats", "--json patching.rule.kind=space --svg " + file("lengths.svg"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json stats = json::parse(result.out);
  EXPECT_EQ(stats["documents"], 200);
  EXPECT_EQ(stats["quantiles"]["0"], 6) << "word0 and a space";
  EXPECT_EQ(stats["quantiles"]["1"], 140);
  EXPECT_NEAR(stats["mean_bytes"].get<double>(), stats["bytes"].get<double>() / 200, 1e-9);
  EXPECT_GT(stats["patch_lengths"]["7"], 1000) << "word42 and a space";
  const std::string svg = content_of(folder_ / "lengths.svg");
  EXPECT_EQ(svg.find("<svg"), 0u);
  EXPECT_NE(svg.find("bytes of a patch"), std::string::npos);
  EXPECT_EQ(svg.find("the last bar"), std::string::npos) << "there are no longer ones";
  const ToolResult long_patches =
      data("stats", "patching.rule.kind=static patching.rule.patch_bytes=40 --svg " + file("long.svg"));
  ASSERT_EQ(long_patches.exit_code, 0) << long_patches.err;
  EXPECT_NE(content_of(folder_ / "long.svg").find("the last bar is all of 32 bytes or more"),
            std::string::npos);
  const ToolResult table = data("stats");
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_NE(table.out.find("documents            200"), std::string::npos) << table.out;
}

TEST_F(BltData, CalibrateFindsTheThresholdOfAMeanPatchLength) {
  const ToolResult none = data("calibrate");
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_NE(none.err.find("calibrate needs an entropy model: name its directory with --model"),
            std::string::npos)
      << none.err;
  const ToolResult result =
      data("calibrate", with_model() + "--json --mean-patch-bytes 3 --svg " + file("curve.svg"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json found = json::parse(result.out);
  EXPECT_NEAR(found["mean_patch_bytes"].get<double>(), 3, 0.15);
  EXPECT_GT(found["curve"].size(), 10u);
  for (size_t i = 1; i < found["curve"].size(); ++i)
    EXPECT_GE(found["curve"][i][1], found["curve"][i - 1][1]) << "patches get no shorter";
  EXPECT_NE(content_of(folder_ / "curve.svg").find("threshold, nats"), std::string::npos);
}

TEST_F(BltData, EntropiesAreComputedOnce) {
  const std::string model = with_model();
  const ToolResult nowhere = data("entropies", model);
  EXPECT_EQ(nowhere.exit_code, 1);
  EXPECT_NE(nowhere.err.find("data.entropy_cache.folder is missing"), std::string::npos) << nowhere.err;
  const std::string cache = "data.entropy_cache.folder=" + file("cache");
  const ToolResult first = data("entropies", model + cache), second = data("entropies", model + cache);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  ASSERT_EQ(second.exit_code, 0) << second.err;
  EXPECT_NE(first.err.find(" sequences, 0 of them were there already"), std::string::npos) << first.err;
  // "…; N sequences, N of them were there already"
  const size_t at = second.err.find("; ") + 2;
  const std::string count = second.err.substr(at, second.err.find(' ', at) - at);
  EXPECT_NE(second.err.find("; " + count + " sequences, " + count + " of them"), std::string::npos)
      << second.err;
  // Training finds them: the metrics say so.
  const ToolResult trained = run("blt_train", file("run.yaml") + " output=" + file("trained") + " " + cache +
                                                  " entropy_model.kind=directory entropy_model.path=" +
                                                  file("out/entropy_model/latest"));
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  std::istringstream metrics(content_of(folder_ / "trained/metrics.jsonl"));
  std::string line;
  ASSERT_TRUE(std::getline(metrics, line));
  EXPECT_EQ(json::parse(line)["data.cache_hits"], 1.0) << line;
}

TEST_F(BltData, InspectShowsTheBatchesOfAStep) {
  const ToolResult space = data("inspect", "--step 3 patching.rule.kind=space");
  ASSERT_EQ(space.exit_code, 0) << space.err;
  EXPECT_NE(space.out.find("batch 1 of 2 of step 3: "), std::string::npos) << space.out;
  EXPECT_NE(space.out.find("batch 2 of 2 of step 3: "), std::string::npos) << space.out;
  EXPECT_NE(space.out.find("word"), std::string::npos);
  EXPECT_NE(space.out.find(" |"), std::string::npos) << "a bar after each patch";
  const ToolResult live = data("inspect", with_model() + "--step 2");
  const ToolResult one = data("inspect", with_model() + "--step 2 data.threads=0 data.prefetch=0");
  ASSERT_EQ(live.exit_code, 0) << live.err;
  EXPECT_EQ(live.out, one.out);
  EXPECT_NE(live.out, data("inspect", with_model() + "--step 1").out);
}

// The pieces of text that it prints for a step, in the order of their batches.
std::vector<std::string> texts(const ToolResult& result) {
  EXPECT_EQ(result.exit_code, 0) << result.err;
  std::vector<std::string> batches;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("batch "))
      batches.emplace_back();
    else if (!batches.empty())
      batches.back() += line + "\n";
  return batches;
}

TEST_F(BltData, InspectGoesByTheBatchesThatStepsAccumulate) {
  const std::string space = "patching.rule.kind=space train.accumulate=1 ";
  std::vector<std::string> alone;  // a batch a step
  for (int step = 1; step <= 6; ++step) {
    const auto batches = texts(data("inspect", space + "--step " + std::to_string(step)));
    ASSERT_EQ(batches.size(), 1u);
    alone.push_back(batches[0]);
  }
  const std::string growing =
      space + "'train.accumulate_from=[{step: 1, batches: 2}, {step: 2, batches: 3}]' --step ";
  EXPECT_EQ(texts(data("inspect", growing + "1")), std::vector<std::string>({alone[0]}));
  EXPECT_EQ(texts(data("inspect", growing + "2")), std::vector<std::string>({alone[1], alone[2]}));
  EXPECT_EQ(texts(data("inspect", growing + "3")), std::vector<std::string>({alone[3], alone[4], alone[5]}));
}

TEST_F(BltData, InspectShowsTheEntropyModelsBatchesAsItsStageHasThem) {
  const ToolResult stage = data("inspect",
                                "model=null entropy_model.sequence_bytes=64 entropy_model.batch_bytes=256 "
                                "entropy_model.train.accumulate=3 --step 2");
  const ToolResult same =
      data("inspect",
           "model=null entropy_model=null patching.rule.kind=space data.sequence_bytes=64 "
           "data.batch_bytes=256 train.accumulate=3 --step 2");
  ASSERT_EQ(same.exit_code, 0) << same.err;
  EXPECT_EQ(texts(stage).size(), 3u);
  EXPECT_EQ(stage.out, same.out);
}

TEST_F(BltData, InspectShowsTheBatchesOfEachRank) {
  const std::string space = "patching.rule.kind=space --step 1 ";
  const auto one = texts(data("inspect", space)), first = texts(data("inspect", space + "--ranks 2")),
             second = texts(data("inspect", space + "--ranks 2 --rank 1"));
  EXPECT_NE(first, one);
  EXPECT_NE(second, first);
  const ToolResult wrong = data("inspect", space + "--ranks 2 --rank 2");
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_NE(wrong.err.find("less than --ranks"), std::string::npos) << wrong.err;
}

TEST_F(BltData, WrongUsageIsSaid) {
  const ToolResult result = run("blt_data", "statistics " + file("run.yaml"));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("stats"), std::string::npos) << result.err;
}

}  // namespace
}  // namespace blt
