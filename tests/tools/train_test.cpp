// blt_train as a user runs it: both ways to give the entropy model, fine-tuning, and with bad input.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <sstream>
#include <string>
#include <vector>

#include "tools/run_tool.h"

namespace blt {
namespace {

using nlohmann::json;

const char* const kData =
    "data:\n"
    "  sources: [{paths: [train.txt]}]\n"
    "  validation: [{paths: [valid.txt]}]\n"
    "  sequence_bytes: 64\n"
    "  batch_bytes: 512\n";
const char* const kEntropyModel =
    "entropy_model:\n"
    "  kind: train\n"
    "  model: {dim: 16, layers: 1, heads: 2, ffn_dim: 32, window: 16}\n"
    "  train: {steps: 12, log_every: 4, optimizer: {learning_rate: 0.01}, schedule: {kind: constant}}\n";
const char* const kPatching = "patching: {rule: {kind: entropy, mean_patch_bytes: 3}}\n";
const char* const kModel =
    "model:\n"
    "  local_dim: 16\n"
    "  window: 16\n"
    "  ngram: {sizes: [2, 3], rows: 100}\n"
    "  local_encoder: {layers: 1, heads: 2, ffn_dim: 32}\n"
    "  latent_transformer: {dim: 32, layers: 1, heads: 2, ffn_dim: 32}\n"
    "  local_decoder: {layers: 1, heads: 2, ffn_dim: 32}\n";
const char* const kTrain =
    "train: {steps: 12, log_every: 4, optimizer: {learning_rate: 0.01}, schedule: {kind: constant}}\n";

class BltTrain : public ToolTest {
 protected:
  BltTrain() {
    std::string text;
    for (int i = 0; i < 200; ++i)
      text += "the quick brown fox number " + std::to_string(i) + " jumps over the lazy dog\n";
    write_content(folder_ / "train.txt", text);
    write_content(folder_ / "valid.txt", text.substr(0, 1000));
  }

  std::string file(const std::string& name) const { return (folder_ / name).string(); }

  std::string config(const std::string& name, const std::vector<std::string>& parts) const {
    std::string text = "output: runs/" + name + "\n";
    for (const std::string& part : parts) text += part;
    write_content(folder_ / (name + ".yaml"), text);
    return file(name + ".yaml");
  }

  ToolResult train(const std::string& arguments) const {
    const ToolResult result = run("blt_train", arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result;
  }

  double bits_per_byte(const std::string& folder) const {
    const ToolResult result = run("blt_eval", file(folder) + " --data " + file("valid.txt") + " --json");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.exit_code == 0 ? json::parse(result.out)["bits_per_byte"].get<double>() : -1;
  }

  // One clear error of so many lines, each text in it, and no file changed.
  void expect_error(const std::string& arguments, const std::vector<std::string>& said,
                    int exit_code = 1) const {
    const auto before = snapshot(folder_);
    const ToolResult result = run("blt_train", arguments);
    EXPECT_EQ(result.exit_code, exit_code) << arguments << "\n" << result.err;
    EXPECT_EQ(result.out, "") << arguments;
    for (const std::string& text : said)
      EXPECT_NE(result.err.find(text), std::string::npos) << "'" << text << "' is not in: " << result.err;
    EXPECT_EQ(result.err.find("terminate called"), std::string::npos) << result.err;
    const auto after = snapshot(folder_);
    for (const auto& [path, content] : before)
      EXPECT_TRUE(after.count(path) != 0 && after.at(path) == content) << path << " was changed";
  }
};

TEST_F(BltTrain, TrainsBothModelsFromOneConfig) {
  const ToolResult trained = train(config("both", {kData, kEntropyModel, kPatching, kModel, kTrain}) +
                                   " train.peak_tflops=0.5 data.entropy_cache.mib=0");
  EXPECT_LT(bits_per_byte("runs/both/latest"), 5.5);
  EXPECT_LT(bits_per_byte("runs/both/entropy_model/latest"), 5.5);
  std::istringstream metrics(content_of(folder_ / "runs/both/metrics.jsonl"));
  std::vector<double> bits;
  for (std::string line; std::getline(metrics, line);) {
    const json row = json::parse(line);
    if (!row.contains("bits_per_byte")) continue;
    bits.push_back(row["bits_per_byte"].get<double>());
    double squares = 0;
    for (const char* module :
         {"local_encoder", "latent_transformer", "local_decoder", "lm_head", "ngram_tables"})
      squares += std::pow(row.at(std::string("gradient_norm.") + module).get<double>(), 2);
    EXPECT_NEAR(std::sqrt(squares), row.at("gradient_norm").get<double>(), 1e-4);
    EXPECT_NEAR(row.at("utilization").get<double>(), row.at("flops_per_s").get<double>() / 0.5e12, 1e-9);
    EXPECT_GE(row.at("peak_memory_bytes").get<int64_t>(), row.at("memory_bytes").get<int64_t>());
    EXPECT_LE(row.at("wait_share").get<double>(), 1);
  }
  ASSERT_GE(bits.size(), 3u);
  // Two summaries, the entropy model's first.
  const size_t summary = trained.err.rfind("12 steps in ");
  ASSERT_NE(summary, std::string::npos) << trained.err;
  EXPECT_LT(trained.err.find("12 steps in "), summary);
  for (const char* said :
       {"the entropy model ", "waited ", "held-out ", "best ", "runs/both/latest", "metrics.jsonl"})
    EXPECT_NE(trained.err.find(said, summary), std::string::npos) << said << " is not in " << trained.err;
  EXPECT_LT(bits.back(), bits.front() - 0.5);
  const std::string settings = content_of(folder_ / "runs/both/latest/run.yaml");
  EXPECT_NE(settings.find("steps: 12"), std::string::npos);
  EXPECT_EQ(settings.find("model:"), std::string::npos) << "config.json is the only model config";
}

TEST_F(BltTrain, NamesTheDirectoryOfAnEntropyModel) {
  train(config("entropy", {kData, kEntropyModel}));
  train(config("blt", {kData, kPatching, kModel, kTrain}) +
        " entropy_model.kind=directory entropy_model.path=" + file("runs/entropy/entropy_model/latest"));
  EXPECT_LT(bits_per_byte("runs/blt/latest"), 5.5);
}

TEST_F(BltTrain, GoesOnFromAModel) {
  train(config("first", {kData, kEntropyModel, kPatching, kModel, kTrain}));
  train(config("second", {kData, kTrain}) + " --init " + file("runs/first/latest"));
  EXPECT_LT(bits_per_byte("runs/second/latest"), bits_per_byte("runs/first/latest") - 0.1);
  expect_error(config("third", {kData, "patching: {rule: {kind: space}}\n", kModel, kTrain}) + " --init " +
                   file("runs/first/latest"),
               {"--init", "remove `model`"});
  // The model's patching stays unless the config says another.
  EXPECT_NE(content_of(folder_ / "runs/second/latest/config.json").find("\"patching_threshold\""),
            std::string::npos);
  train(config("fourth", {kData, kTrain, "patching: {rule: {kind: space}}\n"}) + " --init " +
        file("runs/first/latest"));
  EXPECT_NE(content_of(folder_ / "runs/fourth/latest/config.json").find("space"), std::string::npos);
}

TEST_F(BltTrain, RepeatsItsNumbers) {
  const std::string both = config("one", {kData, kEntropyModel, kPatching, kModel, kTrain});
  train(both);
  train(both + " output=" + file("runs/two"));
  EXPECT_TRUE(content_of(folder_ / "runs/one/latest/model.safetensors") ==
              content_of(folder_ / "runs/two/latest/model.safetensors"));
  train(both + " seed=2 output=" + file("runs/three"));
  EXPECT_FALSE(content_of(folder_ / "runs/one/latest/model.safetensors") ==
               content_of(folder_ / "runs/three/latest/model.safetensors"));
}

TEST_F(BltTrain, MovesMatricesByMuonAveragesItsWeightsAndGoesOnBitForBit) {
  const std::string path = config("ema", {kData, kEntropyModel, kPatching, kModel, kTrain}) +
                           " train.ema={} train.optimizer.matrices=muon entropy_model.train.ema={} "
                           "'train.accumulate_from=[{step: 4, batches: 2}]'";
  train(path);
  train(path + " train.steps=6 output=" + file("runs/rest"));
  const ToolResult rest = train(path + " --resume auto output=" + file("runs/rest"));
  EXPECT_NE(rest.err.find("going on from " + file("runs/rest/step_00000006")), std::string::npos) << rest.err;
  for (const char* model : {"latest", "latest/ema", "entropy_model/latest", "entropy_model/latest/ema"})
    EXPECT_TRUE(content_of(folder_ / "runs/ema" / model / "model.safetensors") ==
                content_of(folder_ / "runs/rest" / model / "model.safetensors"))
        << model;
  EXPECT_LT(bits_per_byte("runs/ema/latest/ema"), 6.5);
  EXPECT_LT(bits_per_byte("runs/ema/entropy_model/latest/ema"), 6.5);
  EXPECT_NE(bits_per_byte("runs/ema/latest/ema"), bits_per_byte("runs/ema/latest"));
}

TEST_F(BltTrain, LogsTheMeansOfTheStepsSinceTheLastLine) {
  const std::string path = config("means", {kData, "patching: {rule: {kind: space}}\n", kModel, kTrain});
  const auto rows = [&](const std::string& name, int log_every) {
    train(path + " data.eos=false train.log_every=" + std::to_string(log_every) + " output=" + file(name));
    std::istringstream metrics(content_of(folder_ / name / "metrics.jsonl"));
    std::vector<json> found;
    for (std::string line; std::getline(metrics, line);)
      if (json row = json::parse(line); row.contains("loss")) found.push_back(row);
    return found;
  };
  const std::vector<json> each = rows("each", 1), fourth = rows("fourth", 4);
  ASSERT_EQ(each.size(), 12u);
  ASSERT_EQ(fourth.size(), 3u);
  for (size_t i = 0; i < fourth.size(); ++i) {
    double sum = 0;
    for (size_t j = 4 * i; j < 4 * i + 4; ++j) sum += each[j]["loss"].get<double>();
    EXPECT_NEAR(fourth[i]["loss"].get<double>(), sum / 4, 0.02) << "batches differ a little in size";
    EXPECT_GT(std::abs(fourth[i]["loss"].get<double>() - each[4 * i + 3]["loss"].get<double>()), 0.03);
    // Every target is a byte: both say the same.
    EXPECT_NEAR(fourth[i]["loss"].get<double>() / std::numbers::ln2, fourth[i]["bits_per_byte"].get<double>(),
                1e-4);
  }
}

TEST_F(BltTrain, PrintsTheResolvedConfig) {
  const ToolResult result = train(config("print", {kData, kEntropyModel, kPatching, kModel, kTrain}) +
                                  " --print-config model.ngram.rows=77");
  EXPECT_NE(result.out.find("rows: 77"), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("norm_eps:"), std::string::npos) << "defaults too";
  EXPECT_FALSE(std::filesystem::exists(folder_ / "runs"));
}

TEST_F(BltTrain, PlansARunWithoutReadingOrWritingAnything) {
  const std::string path = config("plan", {kData, kEntropyModel, kPatching, kModel, kTrain}) +
                           " data.sources.0.paths.0=" + file("nowhere.txt") + " --dry-run";
  const ToolResult page = train(path + " --world 4 --memory-gib 1 --tflops 1 --bandwidth-gbps 1");
  for (const char* said : {"4 ranks, sharding none", "optimizer", "training the entropy model before",
                           "fits in 1 GiB", "gradients, all-reduced", "transfers at 1 Gbit/s"})
    EXPECT_NE(page.out.find(said), std::string::npos) << said << " is not in\n" << page.out;
  EXPECT_EQ(run("blt_train", path + " --memory-gib 0.001").exit_code, 4);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "runs"));
  expect_error(path + " --check", {"--dry-run", "without --init, --resume, --check, --profile"}, 2);
  expect_error(config("real", {kData, kPatching, kModel, kTrain}) + " --world 2", {"are for --dry-run"}, 2);
  expect_error(config("nothing", {kData}) + " --dry-run", {"--dry-run needs the model's shape"});
}

TEST_F(BltTrain, ProfilesBothModelsAndGoesOn) {
  const std::string path = config("profiled", {kData, kEntropyModel, kPatching, kModel, kTrain});
  const std::string said = train(path + " --profile 2").err;
  for (const char* text : {"2 steps of ", "parts of the step, modules forward", "local_encoder.layers.0",
                           "blt::segment_attention", "step 12/12"})
    EXPECT_NE(said.find(text), std::string::npos) << text << " is not in\n" << said;
  for (const char* folder : {"entropy_model/", ""}) {
    const json trace = json::parse(content_of(folder_ / "runs/profiled" / folder / "trace.rank_0.json"));
    std::vector<std::string> names;
    for (const json& event : trace["traceEvents"]) names.push_back(event.value("name", ""));
    for (const char* name : {"step 4", "step 5", "forward", "backward",
                             *folder == 0 ? "latent_transformer.layers.0" : "layers.0.self_attn"})
      EXPECT_EQ(std::count(names.begin(), names.end(), name),
                std::string_view(name).starts_with("step") ? 1 : 2)
          << folder << name;
  }
  expect_error(path + " --profile 0", {"profile"}, 2);
  expect_error(path + " --check --profile 1", {"leave out --profile"}, 2);
  expect_error(path + " --nvtx", {"is about the steps of --profile"}, 2);
}

TEST_F(BltTrain, TakesADeviceAndKeepsItOutOfCheckpoints) {
  const std::string path = config("placed", {kData, kEntropyModel, kPatching, kModel, kTrain});
  expect_error(path + " device=gpu", {"override device=gpu: device: must be cpu, cuda"});
  if (run("blt_train", path + " --check device=cuda").exit_code != 0) {
    expect_error(path + " device=cuda", {"device: cuda: ", "compute on the cpu"});
    expect_error(path + " device=cuda:3", {"device: cuda:3: ", "compute on the cpu"});
  }
  train(path + " device=cpu");
  for (const char* file : {"latest/run.yaml", "latest/config.json", "latest/trainer_state.json"})
    for (const char* key : {"\ndevice:", "\"device\""})
      EXPECT_EQ(content_of(folder_ / "runs/placed" / file).find(key), std::string::npos) << file;
}

TEST_F(BltTrain, ComputesEntropiesWhereAndInWhatTypeTheConfigSays) {
  const std::string path = config("rounded", {kData, kEntropyModel, kPatching, kModel, kTrain});
  if (run("blt_train", path + " --check data.entropy_device=cuda").exit_code !=
      0)  // found before anything is trained
    expect_error(path + " data.entropy_device=cuda", {"data.entropy_device: cuda: ", "compute on the cpu"});
  const std::string said = train(path + " data.entropy_compute=bfloat16").err;
  const size_t moved = said.find("entropies on cpu in bfloat16: of ");
  EXPECT_NE(moved, std::string::npos) << said;
  EXPECT_NE(said.find(" start where those of the cpu in float32 start none", moved), std::string::npos)
      << said;
  EXPECT_EQ(
      train(config("plain", {kData, kEntropyModel, kPatching, kModel, kTrain})).err.find("entropies on"),
      std::string::npos);
  // What is saved has the weights that were trained, not their rounded copy.
  const auto entropy_model_bits = [&](const std::string& run_name) {
    const ToolResult result =
        run("blt_eval", file("runs/" + run_name + "/latest") + " --data " + file("valid.txt") + " --json");
    return json::parse(result.out)["entropy_model_bits_per_byte"].get<double>();
  };
  EXPECT_EQ(entropy_model_bits("rounded"), entropy_model_bits("plain"));
}

TEST_F(BltTrain, ReportsAllMistakesOfAConfigAtOnce) {
  const std::string path =
      config("wrong", {kData, "model: {local_dimm: 16}\n", "train: {steps: many}\n", "seed: -1\n"});
  expect_error(path, {"wrong.yaml:7: model.local_dimm is not a known key (did you mean local_dim?)",
                      "wrong.yaml:8: train.steps", "wrong.yaml:9: seed"});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "runs"));
  expect_error(config("null", {kData, kPatching, kModel, kTrain}) + " train=null data=null patching=null",
               {"override train=null: train must be a section", "override data=null: data must be a section",
                "override patching=null: patching must be a section"});
  expect_error(config("nothing", {kData, kModel, "train:\n"}), {"nothing.yaml:14: train must be a section"});
  write_content(path, "output: [unclosed\n");
  expect_error(path, {"wrong.yaml"});
  expect_error(file("none.yaml"), {"none.yaml"});
}

TEST_F(BltTrain, RefusesMissingEmptyAndBrokenData) {
  const std::string path = config("data", {kData, kEntropyModel, kPatching, kModel, kTrain});
  expect_error(path + " data.sources.0.paths.0=" + file("trian.txt"),
               {"trian.txt", "did you mean train.txt"});
  write_content(folder_ / "empty.txt", "");
  expect_error(path + " data.sources.0.paths.0=" + file("empty.txt"), {"empty.txt: the file is empty"});
  expect_error(path + " data.validation.0.paths.0=" + file("gone.txt"), {"gone.txt"});
  std::string lines;
  for (int i = 0; i < 20; ++i) lines += "{\"text\": \"a line of text that says little\"}\n";
  write_content(folder_ / "lines.jsonl", lines + "{\"text\": \"cut off\n");
  expect_error(path + " data.sources.0.paths.0=" + file("lines.jsonl"), {"lines.jsonl:21: invalid JSON"});
}

TEST_F(BltTrain, RefusesAnEntropyModelThatIsNotThere) {
  expect_error(config("blt", {kData, kPatching, kModel, kTrain}) +
                   " entropy_model.kind=directory entropy_model.path=" + file("nowhere"),
               {"nowhere"});
}

TEST_F(BltTrain, RefusesDamagedModels) {
  train(config("whole", {kData, kEntropyModel, kPatching, kModel, kTrain}));
  const std::string whole = content_of(folder_ / "runs/whole/latest/model.safetensors");
  const std::string settings = content_of(folder_ / "runs/whole/latest/config.json");
  const std::string start = config("start", {kData, kTrain}) + " --init " + file("damaged");
  const std::string given = config("given", {kData, kPatching, kModel, kTrain}) +
                            " entropy_model.kind=directory entropy_model.path=" + file("damaged");
  const auto expect_both = [&](const std::string& weights, const std::string& config_json,
                               const std::string& said) {
    write_content(folder_ / "damaged/model.safetensors", weights);
    write_content(folder_ / "damaged/config.json", config_json);
    expect_error(start, {said});
    expect_error(given, {said});
  };
  expect_both(whole.substr(0, whole.size() - 1), settings, "model.safetensors");
  expect_both(whole.substr(0, 20), settings, "model.safetensors");
  expect_both("", settings, "model.safetensors");
  expect_both(whole, settings.substr(0, settings.size() / 2), "config.json");
  // Names of the same length: one tensor is missing, and another is not known.
  std::string renamed = whole;
  const std::string name = "model.patcher.norm.weight";
  renamed.replace(renamed.find(name), name.size(), "model.patcher.norm.weighs");
  expect_both(renamed, settings, name);
  // A shape of as many elements.
  std::string reshaped = whole;
  const std::string matrix = "model.patcher.layers.0.self_attn.q_proj.weight";
  const std::string shape = "[16,16]";
  reshaped.replace(reshaped.find(shape, reshaped.find(matrix)), shape.size(), "[ 8,32]");
  expect_both(reshaped, settings, matrix);
}

TEST_F(BltTrain, NeverWritesOverAnotherRun) {
  const std::string path = config("once", {kData, kEntropyModel});
  train(path);
  expect_error(path, {"holds checkpoints of an earlier run"});
}

TEST_F(BltTrain, TellsWrongUsage) {
  expect_error("", {"CONFIG.yaml"}, 2);
  expect_error(config("usage", {kData}) + " steps", {"blt_train: steps is not of the form section.key=value"},
               2);
  expect_error(config("usage", {kData}) + " --stepss 3", {"--stepss"}, 2);
  EXPECT_EQ(run("blt_train", "--help").exit_code, 0);
  EXPECT_NE(run("blt_train", "--help-config").out.find("model.local_encoder.heads"), std::string::npos);
}

}  // namespace
}  // namespace blt
