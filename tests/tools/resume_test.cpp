// blt_train as it is stopped, killed and started again: going on gives the bytes that a run without a break gives.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "blt/io/safetensors.h"
#include "tools/train_run.h"

namespace blt {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

const std::string kBfloat16 = "train.compute=bfloat16 entropy_model.train.compute=bfloat16";

class BltTrainResume : public TrainRunTest {
 protected:
  BltTrainResume() : TrainRunTest(Run{}) {}

  void expect_equal_checkpoints(const std::string& a, const std::string& b) const {
    for (const char* name : {"model.safetensors", "optimizer.safetensors", "config.json"})
      EXPECT_TRUE(content_of(folder_ / a / name) == content_of(folder_ / b / name))
          << a << " " << b << " " << name;
    EXPECT_FALSE(content_of(folder_ / a / "model.safetensors").empty());
    const auto state = [&](const std::string& folder) {
      return json::parse(content_of(folder_ / folder / "trainer_state.json"));
    };
    EXPECT_EQ(state(a), state(b));
  }
  // Rows about losses, without the speeds.
  std::vector<json> losses(const std::string& output) const {
    std::vector<json> rows;
    std::istringstream lines(content_of(folder_ / output / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      json row = json::parse(line);
      if (row.contains("checkpoint_stop_s")) continue;
      const auto of_the_machine =
          [](const std::string& key) {  // the clock, memory, and what the loader's threads did
            return key.ends_with("_per_s") || key.ends_with("memory_bytes") || key == "wait_share" ||
                   key.starts_with("data.");
          };
      for (auto item = row.begin(); item != row.end();)
        item = of_the_machine(item.key()) ? row.erase(item) : std::next(item);
      rows.push_back(row);
    }
    return rows;
  }
  void expect_ten_steps_are_five_and_five(const std::string& more) const;
  void expect_no_leftovers(const fs::path& output) const {
    for (const auto& entry : fs::directory_iterator(output))
      EXPECT_NE(entry.path().filename().string()[0], '.') << entry.path();
  }
};

// more: overrides of the config.
void BltTrainResume::expect_ten_steps_are_five_and_five(const std::string& more) const {
  ASSERT_EQ(train("whole", more).exit_code, 0);
  // A cut in the entropy model's phase, one between the phases, one in the BLT's.
  ASSERT_EQ(
      train("cut", "model=null train.steps=10 entropy_model.train.checkpoint_every=5 " + more).exit_code, 0);
  fs::remove_all(folder_ / "cut/entropy_model/step_00000010");
  for (const std::string stage : {"entropy", "between", "blt"}) {
    if (stage == "between") {
      fs::remove_all(folder_ / "cut/step_00000010");
      fs::remove_all(folder_ / "cut/step_00000005");
    }
    if (stage == "blt") {
      ASSERT_TRUE(fs::exists(folder_ / "cut/step_00000005"));
      fs::remove_all(folder_ / "cut/step_00000010");
    }
    const ToolResult result = train("cut", "--resume auto train.checkpoint_every=5 " + more);
    ASSERT_EQ(result.exit_code, 0) << stage << result.err;
    EXPECT_NE(result.err.find("going on from"), std::string::npos) << result.err;
    expect_equal_checkpoints("whole/entropy_model/step_00000010", "cut/entropy_model/step_00000010");
    // The step of the best validation is the same: both validate only at the end.
    expect_equal_checkpoints("whole/step_00000010", "cut/step_00000010");
    EXPECT_EQ(losses("whole"), losses("cut")) << stage;
    EXPECT_EQ(losses("whole/entropy_model"), losses("cut/entropy_model")) << stage;
  }
  EXPECT_EQ(fs::read_symlink(folder_ / "cut/latest"), "step_00000010");
  EXPECT_EQ(fs::read_symlink(folder_ / "cut/best"), "step_00000010");
  // Once more: there is nothing left to do, and nothing changes.
  const auto before = content_of(folder_ / "cut/step_00000010/trainer_state.json");
  EXPECT_EQ(train("cut", "--resume auto " + more).exit_code, 0);
  EXPECT_EQ(content_of(folder_ / "cut/step_00000010/trainer_state.json"), before);
  // A checkpoint by its name, into another folder.
  ASSERT_EQ(train("other", "--resume " + file("cut/step_00000005") + " " + more).exit_code, 0);
  expect_equal_checkpoints("whole/step_00000010", "other/step_00000010");
}

// Not yet run: no machine with a device has been at hand.
TEST_F(BltTrainResume, GoesOnWhereverItWasSaved) {
  const ToolResult whole = train("whole", "device=cuda");
  if (whole.exit_code != 0) {
    EXPECT_NE(whole.err.find("device: cuda: "), std::string::npos) << whole.err;
    GTEST_SKIP() << whole.err;
  }
  ASSERT_EQ(train("again", "device=cuda train.checkpoint_every=5").exit_code, 0);
  fs::remove_all(folder_ / "again/step_00000010");
  ASSERT_EQ(train("again", "--resume auto device=cuda").exit_code, 0);
  expect_equal_checkpoints("whole/step_00000010", "again/step_00000010");  // on one device bit for bit
  for (const bool to_cuda : {false, true}) {
    const std::string output = to_cuda ? "to_cuda" : "from_cuda";
    const auto on = [&](bool cuda) { return std::string(cuda ? " device=cuda" : " device=cpu"); };
    ASSERT_EQ(train(output, "train.checkpoint_every=5" + on(!to_cuda)).exit_code, 0);
    fs::remove_all(folder_ / output / "step_00000010");
    ASSERT_EQ(train(output, "--resume auto" + on(to_cuda)).exit_code, 0);
    const std::vector<json> there = losses("whole"), here = losses(output);
    ASSERT_EQ(there.size(), here.size());
    for (size_t i = 0; i < there.size(); ++i)
      if (there[i].contains("loss")) {
        EXPECT_NEAR(there[i]["loss"].get<double>(), here[i]["loss"].get<double>(), 2e-3) << i;
      }
  }
}

TEST_F(BltTrainResume, TenStepsAreFiveAndFiveInEitherPhase) { expect_ten_steps_are_five_and_five(""); }

TEST_F(BltTrainResume, TenStepsAreFiveAndFiveInBfloat16) {
  expect_ten_steps_are_five_and_five(kBfloat16 + " train.optimizer.table_update=lazy");
  const auto dtypes = [&](const std::string& path, const std::string& prefix) {
    const SafetensorsFile tensors(folder_ / path);
    std::set<at::ScalarType> found;
    for (const SafetensorsEntry& entry : tensors.entries())
      if (entry.name.starts_with(prefix)) found.insert(entry.dtype);
    return found;
  };
  const std::set<at::ScalarType> narrow = {at::kBFloat16}, wide = {at::kFloat};
  EXPECT_EQ(dtypes("whole/entropy_model/latest/model.safetensors", ""), narrow);
  EXPECT_EQ(dtypes("whole/latest/model.safetensors", "model.local_"), narrow);
  EXPECT_EQ(dtypes("whole/latest/model.safetensors", "model.encoder_hash"), narrow);
  EXPECT_EQ(dtypes("whole/latest/model.safetensors", "model.patcher."), wide);
  EXPECT_EQ(dtypes("whole/latest/optimizer.safetensors", ""), wide);
  const SafetensorsFile state(folder_ / "whole/latest/optimizer.safetensors");
  EXPECT_NE(state.find("local_encoder.embedding.ngram_table.master"), nullptr);
  const auto said = [&](const std::string& path) {
    return json::parse(content_of(folder_ / path / "config.json"))["dtype"];
  };
  EXPECT_EQ(said("whole/latest"), "float32");  // because of the entropy model inside
  EXPECT_EQ(said("whole/entropy_model/latest"), "bfloat16");
  // The entropy model inside is the one that was trained, and every tool takes both.
  const double validated = losses("whole").back()["valid_bits_per_byte"];
  const std::string data = " --data " + file("valid.txt") + " --json";
  const ToolResult evaluated = run("blt_eval", file("whole/latest") + data);
  ASSERT_EQ(evaluated.exit_code, 0) << evaluated.err;
  const json result = json::parse(evaluated.out);
  EXPECT_NEAR(result["bits_per_byte"].get<double>(), validated, 0.01 * validated);
  const ToolResult alone = run("blt_eval", file("whole/entropy_model/latest") + data);
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  EXPECT_EQ(json::parse(alone.out)["bits_per_byte"], result["entropy_model_bits_per_byte"]);
  for (const char* name : {"whole/latest", "whole/entropy_model/latest"}) {
    const ToolResult generated = run("blt_generate", file(name) + " --prompt line --max-bytes 20");
    EXPECT_EQ(generated.exit_code, 0) << generated.err;
  }
  const ToolResult patched = run("blt_patch", file("whole/latest") + " " + file("valid.txt") + " --json");
  EXPECT_EQ(patched.exit_code, 0) << patched.err;
}

TEST_F(BltTrainResume, TenStepsAreFiveAndFiveWithEachStateOfTables) {
  const std::string moments = "train.optimizer.table_moments=bfloat16 ",
                    by_row = "train.optimizer.table_second_moment=row ";
  const std::string table = "local_encoder.embedding.ngram_table";
  for (const std::string& state : {moments, by_row, moments + by_row}) {
    SCOPED_TRACE(state);
    for (const char* folder : {"whole", "cut", "other"}) fs::remove_all(folder_ / folder);
    expect_ten_steps_are_five_and_five(state);
    const SafetensorsFile saved(folder_ / "whole/latest/optimizer.safetensors");
    const bool narrow = state.starts_with(moments), rows = state.ends_with(by_row);
    const SafetensorsEntry first = *saved.find(table + ".exp_avg"),
                           second = *saved.find(table + ".exp_avg_sq");
    EXPECT_EQ(first.dtype, narrow ? at::kBFloat16 : at::kFloat);
    EXPECT_EQ(first.sizes, (std::vector<int64_t>{1000, 16}));
    EXPECT_EQ(second.dtype, narrow && !rows ? at::kBFloat16 : at::kFloat);
    EXPECT_EQ(second.sizes, rows ? std::vector<int64_t>{1000} : first.sizes);
  }
  const ToolResult changed = train("whole", "--resume auto train.steps=12");
  EXPECT_EQ(changed.exit_code, 1);
  EXPECT_NE(changed.err.find("optimizer.safetensors: " + table +
                             ".exp_avg is BFloat16 [1000, 16], and this "
                             "run has Float [1000, 16] there: a resume keeps train.optimizer.table_moments"),
            std::string::npos)
      << changed.err;
}

TEST_F(BltTrainResume, MayGoOnInTheOtherComputeType) {
  ASSERT_EQ(train("float32", "train.steps=4").exit_code, 0);
  ASSERT_EQ(train("float32", "train.steps=8 --resume auto").exit_code, 0);
  const double expected = losses("float32").back()["valid_bits_per_byte"];
  const std::string to_bfloat16 = " train.compute=bfloat16", steps = "train.steps=4";
  for (const bool narrow_first : {false, true}) {
    const std::string output = narrow_first ? "to_float32" : "to_bfloat16";
    ASSERT_EQ(train(output, steps + (narrow_first ? to_bfloat16 : "")).exit_code, 0);
    const ToolResult rest = train(output, "train.steps=8 --resume auto" + (narrow_first ? "" : to_bfloat16));
    ASSERT_EQ(rest.exit_code, 0) << rest.err;
    EXPECT_NEAR(losses(output).back()["valid_bits_per_byte"].get<double>(), expected, 0.005 * expected)
        << output;
    const SafetensorsFile model(folder_ / output / "latest/model.safetensors");
    EXPECT_EQ(model.find("lm_head.weight")->dtype, narrow_first ? at::kFloat : at::kBFloat16);
    const SafetensorsFile state(folder_ / output / "latest/optimizer.safetensors");
    EXPECT_EQ(state.find("lm_head.weight.master") != nullptr, !narrow_first);
  }
}

TEST_F(BltTrainResume, SaysWhatIsWrongWithACheckpoint) {
  ASSERT_EQ(train("out", "train.steps=6 train.checkpoint_every=2").exit_code, 0);
  const ToolResult fresh = train("out");
  EXPECT_EQ(fresh.exit_code, 1);
  EXPECT_NE(fresh.err.find("--resume auto"), std::string::npos) << fresh.err;
  const ToolResult older = train("out", "--resume " + file("out/step_00000004"));
  EXPECT_EQ(older.exit_code, 1);
  EXPECT_NE(older.err.find("step_00000006 is newer"), std::string::npos) << older.err;
  EXPECT_EQ(train("out", "--resume " + file("nothing")).exit_code, 1);
  const ToolResult folder = train("out", "--resume " + folder_.string());
  EXPECT_EQ(folder.exit_code, 1);
  EXPECT_NE(folder.err.find("name a checkpoint"), std::string::npos) << folder.err;
  const ToolResult seed = train("out", "--resume auto seed=7");
  EXPECT_EQ(seed.exit_code, 1);
  EXPECT_NE(seed.err.find("seed"), std::string::npos) << seed.err;
  const ToolResult width = train("out", "--resume auto model.local_dim=32");
  EXPECT_EQ(width.exit_code, 1);
  EXPECT_NE(width.err.find("model.local_dim was 16, is 32"), std::string::npos) << width.err;

  // Cut short anywhere, or a bit of it flipped: the one before is used, and the damaged one named.
  for (const char* name :
       {"model.safetensors", "optimizer.safetensors", "trainer_state.json", "manifest.json", "run.yaml"}) {
    const fs::path path = folder_ / "out/step_00000006" / name;
    const std::string whole = content_of(path);
    std::string flipped = whole;
    flipped[whole.size() * 3 / 4] ^= 16;
    write_content(path, name == std::string("manifest.json") ? whole.substr(0, whole.size() / 2) : flipped);
    if (name == std::string("optimizer.safetensors")) write_content(path, whole.substr(0, whole.size() / 2));
    const ToolResult named = train("out", "--resume " + file("out/step_00000006"));
    EXPECT_EQ(named.exit_code, 1);
    EXPECT_NE(named.err.find(name), std::string::npos) << named.err;
    const ToolResult result = train("out", "--resume auto train.steps=4");  // step 4 is there: nothing to do
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NE(result.err.find("step_00000006 is damaged"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("going on from " + file("out/step_00000004")), std::string::npos) << result.err;
    EXPECT_FALSE(fs::exists(path)) << "it counts no more";
    fs::rename(folder_ / "out/step_00000006.damaged", folder_ / "out/step_00000006");
    write_content(path, whole);
  }
}

// As where a disk is not there for a while: a run must not begin anew over what it has.
TEST_F(BltTrainResume, DoesNotStartOverWhereNoCheckpointIsWhole) {
  ASSERT_EQ(train("out", "train.steps=4 train.checkpoint_every=2").exit_code, 0);
  for (const char* step : {"2", "4"})
    fs::remove(folder_ / ("out/step_0000000" + std::string(step)) / "manifest.json");
  const std::string metrics = content_of(folder_ / "out/metrics.jsonl");
  for (const std::string& resume : {std::string("auto"), file("out")}) {
    const ToolResult result = train("out", "--resume " + resume);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_NE(result.err.find(file("out") + ": holds checkpoints, and none of them is whole (the newest: " +
                              file("out/step_00000004/manifest.json")),
              std::string::npos)
        << result.err;
  }
  EXPECT_EQ(content_of(folder_ / "out/metrics.jsonl"), metrics);
  EXPECT_TRUE(fs::exists(folder_ / "out/step_00000004/model.safetensors"));
}

// What lies in the output, and is not called as the run's own are.
TEST_F(BltTrainResume, GoesOnFromACheckpointUnderAnotherName) {
  ASSERT_EQ(train("out", "train.steps=4 train.checkpoint_every=4").exit_code, 0);
  fs::rename(folder_ / "out/step_00000004", folder_ / "out/good");
  const ToolResult result = train("out", "train.steps=6 --resume " + file("out/good"));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(fs::exists(folder_ / "out/step_00000006/config.json")) << result.err;
}

TEST_F(BltTrainResume, RefusesSettingsThatWouldChangeTheRun) {
  ASSERT_EQ(train("out", "train.steps=4").exit_code, 0);
  const auto before = snapshot(folder_ / "out");
  const ToolResult changed = train(
      "out",
      "--resume auto train.steps=6 data.sequence_bytes=64 data.shuffle_sequences=9 "
      "data.entropy_compute=bfloat16 data.sources.0.weight=3 patching.max_patch_length=5 model.window=16");
  EXPECT_EQ(changed.exit_code, 1);
  for (const char* said :
       {"out/step_00000004: was made with other settings",
        "\nblt_train: data.sequence_bytes was 128, is 64\n",
        "\nblt_train: data.shuffle_sequences was 8, is 9\n",
        "\nblt_train: data.entropy_compute was float32, is bfloat16\n",
        "\nblt_train: data.sources.0.weight was 1.0, is 3.0\n", "\nblt_train: model.window was 32, is 16\n",
        "\nblt_train: patching.max_patch_length was null, is 5\n"})
    EXPECT_NE(changed.err.find(said), std::string::npos) << said << " is not in " << changed.err;
  EXPECT_EQ(changed.err.find("train.steps"), std::string::npos) << changed.err;
  EXPECT_EQ(snapshot(folder_ / "out"), before);
  // What may change: how long and how fast to train, how often something happens, what to validate on.
  const ToolResult allowed = train(
      "out",
      "--resume auto train.steps=6 train.accumulate=1 train.optimizer.learning_rate=1e-4 "
      "train.schedule.kind=constant train.eval_every=1 train.log_every=2 "
      "data.validation.0.paths.0=" +
          file("train.txt") +
          " data.threads=2 data.prefetch=1 data.entropy_batch_bytes=500 model.local_encoder.dropout=0.3");
  EXPECT_EQ(allowed.exit_code, 0) << allowed.err;
  // In the entropy model's phase likewise.
  ASSERT_EQ(train("cut", "model=null").exit_code, 0);
  const ToolResult entropy =
      train("cut", "--resume auto model=null entropy_model.sequence_bytes=32 entropy_model.model.window=8");
  EXPECT_EQ(entropy.exit_code, 1);
  for (const char* said : {"data.sequence_bytes was 128, is 32", "entropy_model.model.window was 16, is 8"})
    EXPECT_NE(entropy.err.find(said), std::string::npos) << said << " is not in " << entropy.err;
}

TEST_F(BltTrainResume, TheFolderOfARunMeansItsNewestCheckpoint) {
  ASSERT_EQ(train("whole").exit_code, 0);
  ASSERT_EQ(train("out", "train.checkpoint_every=5").exit_code, 0);
  fs::remove_all(folder_ / "out/step_00000010");
  // Into the same folder, and from the entropy model's phase into another one.
  const ToolResult same = train("out", "--resume " + file("out"));
  ASSERT_EQ(same.exit_code, 0) << same.err;
  EXPECT_NE(same.err.find("going on from " + file("out/step_00000005")), std::string::npos) << same.err;
  expect_equal_checkpoints("whole/step_00000010", "out/step_00000010");
  for (const char* step : {"out/step_00000005", "out/step_00000010"}) fs::remove_all(folder_ / step);
  ASSERT_EQ(train("other", "--resume " + file("out/")).exit_code, 0);
  expect_equal_checkpoints("whole/step_00000010", "other/step_00000010");
}

TEST_F(BltTrainResume, TwoRunsAreKeptOutOfOneFolder) {
  const std::string arguments =
      file("run.yaml") + " output=" + file("out") + " train.steps=100000 entropy_model.train.steps=100000";
  const pid_t process = start(arguments);
  for (int i = 0; i < 600 && !fs::exists(folder_ / "out/entropy_model/metrics.jsonl"); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  for (const std::string resume : {"", "--resume auto"}) {
    const ToolResult second = train("out", resume);
    EXPECT_EQ(second.exit_code, 1);
    EXPECT_NE(second.err.find(file("out") + ": process " + std::to_string(process) + " on "),
              std::string::npos)
        << second.err;
  }
  kill(process, SIGKILL);  // leaves its file behind, which locks nothing
  status_of(process);
  EXPECT_TRUE(fs::exists(folder_ / "out/run.lock"));
  ASSERT_EQ(train("out", "--resume auto").exit_code, 0);
  EXPECT_FALSE(fs::exists(folder_ / "out/run.lock"));
}

TEST_F(BltTrainResume, SaysWhyTheOutputCannotBeWritten) {
  const ToolResult result = train("valid.txt/out");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("valid.txt/out: cannot make this folder: Not a directory"), std::string::npos)
      << result.err;
  // A folder stands where the file should.
  fs::create_directories(folder_ / "out/entropy_model/metrics.jsonl");
  const ToolResult metrics = train("out");
  EXPECT_EQ(metrics.exit_code, 1);
  EXPECT_NE(metrics.err.find("metrics.jsonl: cannot "), std::string::npos) << metrics.err;
  EXPECT_NE(metrics.err.find(": Is a directory"), std::string::npos) << metrics.err;
}

// The sample of text that calibration reads takes this entropy model many seconds.
TEST_F(BltTrainResume, ASignalBeforeTheFirstStepEndsItAtOnce) {
  const std::string arguments =
      file("run.yaml") + " output=" + file("out") +
      " entropy_model.model='{dim: 256, layers: 6, heads: 4}' entropy_model.train.steps=1";
  const pid_t process = start(arguments);
  for (int i = 0;
       i < 1200 && content_of(file("log")).find("finding the patching threshold") == std::string::npos; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const auto sent = std::chrono::steady_clock::now();
  kill(process, SIGINT);
  const int status = status_of(process);
  EXPECT_LT(std::chrono::steady_clock::now() - sent, std::chrono::seconds(2));
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 3);
  const std::string log = content_of(file("log"));
  EXPECT_NE(log.find("nothing is lost"), std::string::npos) << log;
  EXPECT_EQ(log.find(" nats: "), log.npos) << "calibration was done before the signal came: " << log;
}

TEST_F(BltTrainResume, KeepsTheNewestAndTheBest) {
  // With this learning rate the first validation is the best.
  const ToolResult result =
      train("out",
            "train.steps=10 train.eval_every=2 train.keep_checkpoints=2 train.checkpoint_every=1 "
            "train.optimizer.learning_rate=3 train.schedule.kind=constant train.max_grad_norm=0");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::string best = fs::read_symlink(folder_ / "out/best").string();
  double best_bits = 1e9;
  int64_t best_step = 0;
  for (const json& row : losses("out"))
    if (row.contains("valid_bits_per_byte") && row["valid_bits_per_byte"].is_number() &&
        row["valid_bits_per_byte"] < best_bits)
      best_bits = row["valid_bits_per_byte"], best_step = row["step"];
  std::string name = std::to_string(best_step);
  EXPECT_EQ(best, "step_" + std::string(8 - name.size(), '0') + name);
  std::vector<std::string> kept;
  for (const auto& entry : fs::directory_iterator(folder_ / "out"))
    if (entry.is_directory() && !entry.is_symlink() && entry.path().filename() != "entropy_model")
      kept.push_back(entry.path().filename().string());
  EXPECT_EQ(kept.size(), best_step >= 9 ? 2U : 3U);
  EXPECT_TRUE(fs::exists(folder_ / "out" / best / "model.safetensors"));
  EXPECT_TRUE(fs::exists(folder_ / "out/step_00000009"));
}

TEST_F(BltTrainResume, GoesOnWhereverItIsKilled) {
  ASSERT_EQ(train("whole", "train.steps=60 train.checkpoint_every=1 entropy_model.train.checkpoint_every=1")
                .exit_code,
            0);
  const std::string arguments =
      file("run.yaml") + " output=" + file("killed") +
      " train.steps=60 train.checkpoint_every=1 entropy_model.train.checkpoint_every=1 --resume auto";
  const char* wanted = std::getenv("BLT_TEST_KILLS");
  const int kills = wanted != nullptr ? std::atoi(wanted) : 8;
  uint64_t random = 12345;
  for (int i = 0; i < kills; ++i) {
    write_content(folder_ / "log", "");
    const pid_t process = start(arguments);
    random = random * 6364136223846793005ULL + 1442695040888963407ULL;
    // Most kills come at a random moment after the first checkpoint of a start; saving is most of what it does then.
    for (int waited = 0;
         i % 4 != 0 && waited < 600 && content_of(file("log")).find("saved ") == std::string::npos; ++waited)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    std::this_thread::sleep_for(std::chrono::milliseconds((random >> 33) % 300));
    kill(process, SIGKILL);
    const int status = status_of(process);
    if (!WIFSIGNALED(status)) {
      EXPECT_EQ(WEXITSTATUS(status), 0) << content_of(file("log"));
    }
  }
  const ToolResult last = run("blt_train", arguments);
  ASSERT_EQ(last.exit_code, 0) << last.err;
  expect_equal_checkpoints("whole/step_00000060", "killed/step_00000060");
  EXPECT_EQ(losses("whole"), losses("killed"));
  expect_no_leftovers(folder_ / "killed");
}

TEST_F(BltTrainResume, StopsInGoodOrderWhenAskedTo) {
  ASSERT_EQ(train("whole", "train.steps=300 train.log_every=100").exit_code, 0);
  const std::string arguments =
      file("run.yaml") + " output=" + file("out") + " train.steps=300 train.log_every=100";
  const pid_t process = start(arguments);
  for (int i = 0; i < 600 && !fs::exists(folder_ / "out/metrics.jsonl"); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  kill(process, SIGINT);
  const int status = status_of(process);
  ASSERT_TRUE(WIFEXITED(status));
  ASSERT_EQ(WEXITSTATUS(status), 3) << content_of(file("log"));
  EXPECT_NE(content_of(file("log")).find("saved " + file("out/step_")), std::string::npos)
      << content_of(file("log"));
  ASSERT_EQ(run("blt_train", arguments + " --resume auto").exit_code, 0);
  expect_equal_checkpoints("whole/step_00000300", "out/step_00000300");
}

TEST_F(BltTrainResume, AFullDiskLeavesTheLastCheckpointWhole) {
  ASSERT_EQ(train("out", "train.steps=4").exit_code, 0);
  const auto size = fs::file_size(folder_ / "out/step_00000004/model.safetensors");
  const auto before = snapshot(folder_ / "out/step_00000004");
  // ulimit counts in kilobytes: no file may become as large as the model.
  const std::string command =
      "sh -c 'ulimit -f " + std::to_string(size / 1024 / 2) + "; exec " + BLT_BIN_DIR + "/blt_train " +
      file("run.yaml") + " output=" + file("out") +
      " train.steps=8 train.checkpoint_every=3 train.last_save_tries=2 --resume auto' > " + file("log") +
      " 2>&1";
  const int status = std::system(command.c_str());
  const std::string log = content_of(file("log"));
  EXPECT_EQ(WEXITSTATUS(status), 1) << log;
  const std::string last = "the last whole one is " + file("out/step_00000004");
  EXPECT_NE(log.find("step 6: the checkpoint was not saved"), std::string::npos) << log;
  EXPECT_NE(log.find(last + "; the training goes on, and the next one is due at step 8"), std::string::npos)
      << log;
  EXPECT_NE(log.find("step 8/8"), std::string::npos) << log;
  EXPECT_NE(log.find(last + "; it is tried again in 1 s"), std::string::npos) << log;
  EXPECT_NE(log.find("blt_train: step 8: the checkpoint was not saved"), std::string::npos) << log;
  EXPECT_EQ(snapshot(folder_ / "out/step_00000004"), before);
  expect_no_leftovers(folder_ / "out");
  EXPECT_EQ(train("out", "train.steps=8 --resume auto").exit_code, 0);
  EXPECT_TRUE(fs::exists(folder_ / "out/step_00000008/trainer_state.json"));
}

TEST_F(BltTrainResume, AFinishedRunCanBeMadeLonger) {
  ASSERT_EQ(train("long", "train.steps=10 train.schedule.kind=constant train.eval_every=5").exit_code, 0);
  ASSERT_EQ(train("out", "train.steps=5 train.schedule.kind=constant train.eval_every=5").exit_code, 0);
  ASSERT_EQ(
      train("out", "train.steps=10 train.schedule.kind=constant train.eval_every=5 --resume auto").exit_code,
      0);
  expect_equal_checkpoints("long/step_00000010", "out/step_00000010");
}

TEST_F(BltTrainResume, CheckBuildsEverythingAndWritesNothing) {
  const auto before = snapshot(folder_);
  const ToolResult result = train("out", "--check data.entropy_cache.folder=" + file("cache"));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("check: a step of"), std::string::npos) << result.err;
  EXPECT_EQ(snapshot(folder_), before);
  const ToolResult missing = train("out", "--check data.validation.0.paths.0=" + file("none.txt"));
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_NE(missing.err.find("none.txt"), std::string::npos) << missing.err;
  EXPECT_EQ(snapshot(folder_), before);
}

TEST_F(BltTrainResume, ARunThatStopsAtALossThatIsNotFiniteIsSavedAndNamesTheText) {
  const std::string broken = "train.optimizer.learning_rate=1e30 train.max_grad_norm=0 ";
  const std::map<std::string, std::string> cases = {{"train.on_nonfinite=stop", "step 2: the "},
                                                    {"train.skip_limit=3", "step 4: 3 steps in a row"}};
  for (const auto& [setting, said] : cases) {
    fs::remove_all(folder_ / "out");
    const ToolResult result = train("out", broken + setting);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_NE(result.err.find("blt_train: " + said), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("is not finite"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("it read " + (folder_ / "").string()), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("What was trained is saved in"), std::string::npos) << result.err;
    EXPECT_NE(content_of(folder_ / "out/metrics.jsonl").find("\"skipped\":\"nonfinite\",\"documents\":["),
              std::string::npos);
    EXPECT_TRUE(fs::exists(folder_ / "out/latest/manifest.json"));
  }
  // Fewer than the limit are told in the end.
  fs::remove_all(folder_ / "out");
  const ToolResult result = train("out", broken);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("\n  skipped     9 steps changed nothing"), std::string::npos) << result.err;
}

TEST_F(BltTrainResume, PrintsTheConfigWithItsCosts) {
  const ToolResult result = train("out", "--print-config");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("\n# total with the entropy model "), std::string::npos) << result.out;
  // An entropy model that is there already counts too; one that is not there yet is said not to.
  ASSERT_EQ(train("entropy", "model=null entropy_model.train.steps=1").exit_code, 0);
  const std::string given = "--print-config 'entropy_model={kind: directory, path: ";
  const std::string there = train("out", given + file("entropy/entropy_model/latest") + "}'").out;
  EXPECT_EQ(there.substr(there.find("\n# module")), result.out.substr(result.out.find("\n# module")));
  EXPECT_NE(train("out", given + file("nothing") + "}'").out.find("# without the entropy model: "),
            std::string::npos);
  write_content(folder_ / "again.yaml", result.out);  // it is still a config
  EXPECT_EQ(run("blt_train", file("again.yaml") + " --print-config").out, result.out);
}

}  // namespace
}  // namespace blt
