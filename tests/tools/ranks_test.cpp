// blt_train with several ranks, as a user starts, stops and kills it.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "data/archives.h"
#include "tools/train_ranks.h"
#include "train/tcp_store.h"

namespace blt {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

class BltTrainRanks : public TrainRanksTest {
 protected:
  void expect_equal_checkpoints(const std::string& a, const std::string& b) const {
    for (const char* name : {"model.safetensors", "optimizer.safetensors", "config.json"})
      EXPECT_TRUE(content_of(folder_ / a / name) == content_of(folder_ / b / name))
          << a << " " << b << " " << name;
    EXPECT_FALSE(content_of(folder_ / a / "model.safetensors").empty());
    EXPECT_EQ(content_of(folder_ / a / "trainer_state.json"), content_of(folder_ / b / "trainer_state.json"));
  }
  double validated(const std::string& output) const {
    std::istringstream lines(content_of(folder_ / output / "metrics.jsonl"));
    double bits = 0;
    for (std::string line; std::getline(lines, line);)
      if (const json row = json::parse(line); row.contains("valid_bits_per_byte"))
        bits = row["valid_bits_per_byte"];
    return bits;
  }
};

TEST_F(BltTrainRanks, GoesOnBitForBitWithTheSameRanksAndWithOthersToo) {
  const std::string layers = "model.latent_transformer.layers=2 ";
  const std::map<std::string, std::string> settings = {
      {"none", ""},
      {"zero1", "parallel.sharding=zero1"},
      {"zero2", "parallel.sharding=zero2"},
      {"zero3", "parallel.sharding=zero3"},
      {"tables", "parallel.tables=sharded"},
      {"all", "parallel.sharding=zero3 parallel.tables=sharded"}};
  for (const auto& [sharding, setting] : settings) {
    const std::string more = layers + "--nproc 2 " + setting;
    const ToolResult whole = train("whole_" + sharding, more);
    ASSERT_EQ(whole.exit_code, 0) << whole.err;
    EXPECT_EQ(whole.err.find("step 8/8"), whole.err.rfind("step 8/8")) << "one rank says it:\n" << whole.err;
    const std::string cut = "cut_" + sharding;
    ASSERT_EQ(train(cut, more + " train.steps=8 train.checkpoint_every=4").exit_code, 0);
    fs::remove_all(folder_ / cut / "step_00000008");
    const ToolResult rest = train(cut, more + " --resume auto");
    ASSERT_EQ(rest.exit_code, 0) << rest.err;
    expect_equal_checkpoints("whole_" + sharding + "/step_00000008", cut + "/step_00000008");
  }
  // Who has which part of the optimizer changes nothing but the order of sums.
  for (const auto& [other, setting] : settings)
    EXPECT_NEAR(validated("whole_none"), validated("whole_" + other), 1e-3) << other;
  EXPECT_GT(validated("whole_none"), 0);
  // Another number of ranks, another sharding.
  const std::vector<std::pair<std::string, std::string>> next = {
      {"zero1", "none"}, {"zero2", "all"}, {"zero3", "zero2"}, {"tables", "zero3"}, {"all", "tables"}};
  for (const auto& [before, after] : next) {
    const std::string cut = "cut_" + before;
    fs::remove_all(folder_ / cut / "step_00000008");
    const ToolResult alone = train(cut, layers + "--resume auto train.steps=6");
    ASSERT_EQ(alone.exit_code, 0) << alone.err;
    EXPECT_NE(
        alone.err.find("1 rank x 2 batches x 256 bytes = 512 bytes, where it was 2 ranks x 2 batches x 256 "
                       "bytes = 1024 bytes"),
        std::string::npos)
        << alone.err;
    EXPECT_NE(alone.err.find("train.accumulate=4 keeps the size"), std::string::npos) << alone.err;
    const ToolResult three = train(cut, layers + "--resume auto --nproc 3 " + settings.at(after));
    ASSERT_EQ(three.exit_code, 0) << three.err;
    EXPECT_NEAR(validated(cut), validated("whole_none"), 0.1 * validated("whole_none")) << cut;
    // What they leave is a model like any other.
    const ToolResult evaluated = run("blt_eval", file(cut + "/latest") + " --data " + file("valid.txt"));
    EXPECT_EQ(evaluated.exit_code, 0) << evaluated.err;
  }
}

// Eight batches a step in any case, each of one sequence: the same text, in the same order.
TEST_F(BltTrainRanks, AnyNumberOfRanksGoesOnWithTheLossesOfOne) {
  const std::string text =
      "entropy_model=null 'patching={rule: {kind: space}}' model.local_encoder.dropout=0 "
      "'model.latent_transformer={dim: 32, layers: 2, heads: 2, ffn_dim: 64}' model.local_decoder.dropout=0 "
      "model.ngram.dropout=0 data.shuffle_sequences=0 data.sequence_bytes=64 data.batch_bytes=64 "
      "'train.schedule={kind: constant}' train.optimizer.learning_rate=1e-2 train.steps=9 ";
  const auto losses = [&](const std::string& output) {
    std::map<int64_t, double> found;
    std::istringstream lines(content_of(folder_ / output / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);)
      if (const json row = json::parse(line); row.contains("loss")) found[row["step"]] = row["loss"];
    return found;
  };
  // Sums of several ranks differ in their last bits; where moments are rounded to bfloat16, a few of them to the other side.
  const std::pair<std::string, double> states[] = {
      {"", 1e-5},
      {"train.optimizer.table_moments=bfloat16 train.optimizer.table_second_moment=row ", 1e-4},
      {"train.optimizer.matrices=muon ", 1e-4}};
  for (const auto& [state, tolerance] : states) {
    SCOPED_TRACE(state);
    for (const char* folder : {"one", "many"}) fs::remove_all(folder_ / folder);
    ASSERT_EQ(train("one", text + state + "train.accumulate=8").exit_code, 0);
    const std::map<int64_t, double> expected = losses("one");
    ASSERT_EQ(expected.size(), 9u);
    EXPECT_LT(expected.at(9), 0.9 * expected.at(1)) << "nothing is learnt that could be lost";
    const std::vector<std::string> stages = {
        "--nproc 2 train.accumulate=4 parallel.sharding=zero3 parallel.tables=sharded train.steps=3",
        "--resume auto --nproc 4 train.accumulate=2 parallel.sharding=zero1 train.steps=6",
        "--resume auto train.accumulate=8"};
    for (const std::string& stage : stages) {
      const ToolResult result = train("many", text + state + stage);
      ASSERT_EQ(result.exit_code, 0) << result.err;
      EXPECT_EQ(result.err.find("of another size"), std::string::npos) << result.err;
    }
    const std::map<int64_t, double> found = losses("many");
    ASSERT_EQ(found.size(), 9u);
    for (const auto& [step, loss] : expected) EXPECT_NEAR(found.at(step), loss, tolerance * loss) << step;
  }
}

TEST_F(BltTrainRanks, AKilledRankEndsAllWithOneMessage) {
  const pid_t launcher = start("out", "--nproc 3 train.steps=100000 train.checkpoint_every=5");
  wait_for(folder_ / "out/step_00000005/config.json");
  const std::vector<pid_t> ranks = ranks_of(launcher);
  ASSERT_EQ(ranks.size(), 3u);
  kill(ranks[1], SIGKILL);
  EXPECT_EQ(exit_code_of(launcher), 1);
  const std::vector<std::string> errors = errors_in(content_of(folder_ / "log"));
  ASSERT_EQ(errors.size(), 1u) << content_of(folder_ / "log");
  EXPECT_TRUE(errors[0].starts_with("blt_train: rank 1 was killed by signal 9 (Killed)")) << errors[0];
  for (const pid_t rank : ranks) EXPECT_NE(kill(rank, 0), 0) << "still runs";
  // Nothing is lost beyond the last checkpoint.
  const ToolResult rest = train("out", "--nproc 3 --resume auto train.steps=6");
  EXPECT_EQ(rest.exit_code, 0) << rest.err;
}

TEST_F(BltTrainRanks, ARankThatHangsIsNamedWhenItsTimeIsOver) {
  const pid_t launcher =
      start("out", "--nproc 2 train.steps=100000 train.checkpoint_every=5 parallel.timeout_s=3");
  wait_for(folder_ / "out/step_00000005/config.json");
  const std::vector<pid_t> ranks = ranks_of(launcher);
  ASSERT_EQ(ranks.size(), 2u);
  kill(ranks[1], SIGSTOP);
  EXPECT_EQ(exit_code_of(launcher), 1);
  const std::vector<std::string> errors = errors_in(content_of(folder_ / "log"));
  ASSERT_EQ(errors.size(), 1u) << content_of(folder_ / "log");
  EXPECT_NE(errors[0].find("rank 1 hangs or is gone: transfer "), std::string::npos) << errors[0];
  EXPECT_NE(errors[0].find("parallel.timeout_s"), std::string::npos) << errors[0];
}

TEST_F(BltTrainRanks, TooManyStepsThatAreNotFiniteEndAllWithOneMessage) {
  const ToolResult result = train(
      "out",
      "--nproc 3 parallel.sharding=zero2 parallel.tables=sharded entropy_model=null 'patching={rule: {kind: "
      "space}}' train.optimizer.learning_rate=1e30 train.max_grad_norm=0 train.skip_limit=3");
  EXPECT_EQ(result.exit_code, 1);
  const std::vector<std::string> errors = errors_in(result.err);
  ASSERT_EQ(errors.size(), 1u) << result.err;
  EXPECT_NE(errors[0].find("step 4: 3 steps in a row were skipped (train.skip_limit)"), std::string::npos)
      << errors[0];
  EXPECT_NE(errors[0].find("it read " + file("train.txt")), std::string::npos) << errors[0];
  EXPECT_NE(errors[0].find("What was trained is saved in " + file("out/step_00000004")), std::string::npos)
      << errors[0];
  for (const char* step : {"step 2: skipped: the ", "step 3: skipped: the "})
    EXPECT_EQ(result.err.find(step), result.err.rfind(step)) << "one rank says it: " << result.err;
}

TEST_F(BltTrainRanks, ASignalStopsAllAtOneStep) {
  struct Case {
    bool to_launcher;
    int signal;
  };
  for (const auto [to_launcher, signal] : {Case{true, SIGTERM}, Case{false, SIGTERM}, Case{true, SIGUSR1}}) {
    const std::string output =
        std::string(to_launcher ? "launcher" : "rank") + (signal == SIGTERM ? "_term" : "_usr1");
    const pid_t launcher = start(output, "--nproc 2 train.steps=100000 train.checkpoint_every=100000");
    wait_for(folder_ / output / "metrics.jsonl");
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    // torchrun and batch systems tell every process; one is enough.
    kill(to_launcher ? launcher : ranks_of(launcher)[1], signal);
    EXPECT_EQ(exit_code_of(launcher), 3) << content_of(folder_ / "log");
    const std::string log = content_of(folder_ / "log");
    EXPECT_NE(log.find("stopped; go on with --resume auto"), std::string::npos) << log;
    EXPECT_TRUE(fs::exists(folder_ / output / "latest/config.json")) << log;
    EXPECT_EQ(train(output, "--nproc 2 --resume auto train.steps=1").exit_code, 0);
  }
}

TEST_F(BltTrainRanks, AnErrorOfAllRanksIsSaidOnce) {
  write_content(folder_ / "out/step_00000004/config.json", "{}");
  const ToolResult result = train("out", "--nproc 3");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(errors_in(result.err).size(), 1u) << result.err;
  EXPECT_NE(result.err.find("holds checkpoints of an earlier run"), std::string::npos) << result.err;
  const ToolResult config = train("new", "--nproc 3 model.local_dimm=3");
  EXPECT_EQ(config.exit_code, 1);
  EXPECT_EQ(errors_in(config.err).size(), 1u) << config.err;
}

// Under torchrun, whose store outlives the ranks, and srun, under which rank 0 keeps it.
TEST_F(BltTrainRanks, AWrongConfigIsSaidOnce) {
  const auto store = tcp_store({.is_server = true});
  for (const bool launcher_keeps_store : {true, false}) {
    const std::vector<pid_t> ranks =
        start_ranks(3, launcher_keeps_store ? store->getPort() : 29623, "model.local_dimm=3",
                    launcher_keeps_store ? "TORCHELASTIC_USE_AGENT_STORE=True" : "");
    for (const pid_t rank : ranks) EXPECT_EQ(exit_code_of(rank), 1);
    const std::string said = said_by_ranks(3);
    ASSERT_EQ(errors_in(said).size(), 1u) << said;
    EXPECT_NE(said.find("model.local_dimm is not a known key"), std::string::npos) << said;
  }
}

// Such as one that sees another file: the others do not wait for it.
TEST_F(BltTrainRanks, AConfigThatOneRankCannotReadEndsAll) {
  const auto start_time = std::chrono::steady_clock::now();
  const pid_t first = start_rank(0, 2, 29624, "parallel.start_timeout_s=100");
  const pid_t second = start_rank(1, 2, 29624, "parallel.start_timeout_s=100 model.local_dimm=3");
  EXPECT_EQ(exit_code_of(first), 1);
  EXPECT_EQ(exit_code_of(second), 1);
  EXPECT_EQ(content_of(folder_ / "log0"), "");
  EXPECT_EQ(errors_in(content_of(folder_ / "log1")).size(), 1u) << content_of(folder_ / "log1");
  EXPECT_LT(std::chrono::steady_clock::now() - start_time, std::chrono::seconds(60));
}

TEST_F(BltTrainRanks, ASignalBeforeAnythingIsBegunStopsAllInGoodOrder) {
  for (const int signal : {SIGTERM, SIGUSR1}) {
    const pid_t launcher = start("early", "--nproc 3");
    ASSERT_TRUE(becomes([&] { return !ranks_of(launcher).empty(); }));
    kill(launcher, signal);  // the ranks are programs that are only being loaded
    EXPECT_EQ(exit_code_of(launcher), 3) << content_of(folder_ / "log");
    EXPECT_EQ(errors_in(content_of(folder_ / "log")).size(), 0u) << content_of(folder_ / "log");
  }
}

TEST_F(BltTrainRanks, ASignalWhileTheConfigIsReadStopsInGoodOrder) {
  const fs::path config = folder_ / "slow.yaml";
  ASSERT_EQ(mkfifo(config.c_str(), 0600), 0);
  const pid_t process = TrainRunTest::start(config.string());
  int writer = -1;
  ASSERT_TRUE(becomes([&] { return (writer = open(config.c_str(), O_WRONLY | O_NONBLOCK)) >= 0; }));
  kill(process, SIGTERM);  // it waits for the first byte
  EXPECT_EQ(exit_code_of(process), 3);
  close(writer);
  EXPECT_EQ(content_of(folder_ / "log"), "stopped before anything was begun\n");
}

TEST_F(BltTrainRanks, ARankThatNeverComesIsNamed) {
  EXPECT_EQ(exit_code_of(start_rank(0, 2, 29617, "parallel.start_timeout_s=1")), 1);
  const std::vector<std::string> errors = errors_in(content_of(folder_ / "log0"));
  ASSERT_EQ(errors.size(), 1u) << content_of(folder_ / "log0");
  EXPECT_NE(errors[0].find("of 2 ranks, 1 did not come to 127.0.0.1:29617 within 1 s"), std::string::npos)
      << errors[0];
  EXPECT_NE(errors[0].find("there are: 0"), std::string::npos) << errors[0];
}

TEST_F(BltTrainRanks, ARankThatCannotReachTheStoreSaysSo) {
  EXPECT_EQ(exit_code_of(start_rank(1, 2, 29619, "parallel.start_timeout_s=1")), 1);
  const std::vector<std::string> errors = errors_in(content_of(folder_ / "log1"));
  ASSERT_EQ(errors.size(), 1u) << content_of(folder_ / "log1");
  EXPECT_NE(errors[0].find("rank 1 of 2: 127.0.0.1:29619 cannot be reached within 1 s"), std::string::npos)
      << errors[0];
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

TEST_F(BltTrainRanks, APartOfOneRankThatIsDamagedIsNamedAndTheCheckpointBeforeUsed) {
  const std::string more = "--nproc 2 parallel.sharding=zero1 train.checkpoint_every=4";
  ASSERT_EQ(train("out", more).exit_code, 0);
  // The last bytes of this file are of the rank that moves the last rows of the table that comes last by name.
  const fs::path damaged = folder_ / "out/step_00000008/model.safetensors";
  std::string bytes = content_of(damaged);
  bytes.back() ^= 1;
  write_content(damaged, bytes);
  const ToolResult named = train("out", more + " --resume " + file("out/step_00000008"));
  EXPECT_EQ(named.exit_code, 1);
  const std::vector<std::string> errors = errors_in(named.err);
  ASSERT_EQ(errors.size(), 1u) << named.err;
  EXPECT_NE(errors[0].find(damaged.string() + "@"), std::string::npos) << errors[0];
  EXPECT_NE(errors[0].find("are not those that rank 1 wrote"), std::string::npos) << errors[0];
  const ToolResult result = train("out", more + " --resume auto");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("step_00000008 is damaged and passed over"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("going on from " + file("out/step_00000004")), std::string::npos) << result.err;
  ASSERT_EQ(train("whole", more).exit_code, 0);
  expect_equal_checkpoints("out/step_00000008", "whole/step_00000008");
}

// Every rank reads all text, and comes to the damaged place when its own batches want it.
TEST_F(BltTrainRanks, SaveWhatTheyTrainedWhereTheTextIsDamagedAndGoOnWhenItIsMended) {
  const std::string text = content_of(folder_ / "train.txt");
  const size_t half = text.find('\n', text.size() / 2) + 1;
  const std::string first = gzip(text.substr(0, half)), second = gzip(text.substr(half));
  const auto archive = folder_ / "train.txt.gz";
  const std::string more =
      "--nproc 2 entropy_model=null 'patching={rule: {kind: space}}' 'data.sources=[{paths: [" +
      archive.string() + "]}]' data.entropy_batch_bytes=256 parallel.sharding=zero3";
  write_content(archive, first + second);
  ASSERT_EQ(train("whole", more).exit_code, 0);

  write_content(archive, first + "no archive" + second.substr(10));
  const ToolResult cut = train("cut", more);
  EXPECT_EQ(cut.exit_code, 1);
  const std::vector<std::string> errors = errors_in(cut.err);
  ASSERT_EQ(errors.size(), 1u) << cut.err;
  EXPECT_TRUE(errors[0].starts_with("blt_train: rank ")) << errors[0];
  EXPECT_NE(errors[0].find(archive.string() + "@"), std::string::npos) << errors[0];
  EXPECT_NE(errors[0].find(". What was trained is saved in " + file("cut/step_0000000")), std::string::npos)
      << errors[0];

  write_content(archive, first + second);
  const ToolResult rest = train("cut", more + " --resume auto");
  ASSERT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_NE(rest.err.find("going on from " + file("cut/step_0000000")), std::string::npos) << rest.err;
  expect_equal_checkpoints("whole/step_00000008", "cut/step_00000008");
}

// A disk of its own, which only who may mount one can have.
TEST_F(BltTrainRanks, TrainOnWhereTheDiskIsFullAndEndWhereTheLastCheckpointDoesNotFit) {
  if (std::system("unshare -m mount -t tmpfs none /mnt 2> /dev/null") != 0)
    GTEST_SKIP() << "file systems cannot be mounted here";
  ASSERT_EQ(train("free", "--nproc 2 train.steps=3 train.checkpoint_every=3").exit_code, 0);
  const auto size_of = [&](const std::string& folder) {
    uint64_t pages = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / folder))
      pages += entry.is_regular_file() ? entry.file_size() / 4096 + 1 : 1;
    return pages * 4096;
  };
  // Room for what is there after the first checkpoint, and for half of another.
  const uint64_t room = size_of("free") + size_of("free/step_00000003") / 2;
  fs::create_directories(folder_ / "disk");
  const std::string command = "unshare -m sh -c 'mount -t tmpfs -o size=" + std::to_string(room) + " none " +
                              file("disk") + " && " + BLT_BIN_DIR + "/blt_train " + file("run.yaml") +
                              " output=" + file("disk/out") +
                              " --nproc 2 train.checkpoint_every=3 train.last_save_tries=2; code=$?; ls -A " +
                              file("disk/out") + "; exit $code' > " + file("log") + " 2>&1";
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 1);
  const std::string log = content_of(folder_ / "log");
  EXPECT_NE(log.find("saved " + file("disk/out/step_00000003")), std::string::npos) << log;
  EXPECT_NE(log.find("step 6: the checkpoint was not saved: "), std::string::npos) << log;
  EXPECT_NE(log.find("No space left on device; the last whole one is " + file("disk/out/step_00000003") +
                     "; the training goes on, and the next one is due at step 8"),
            std::string::npos)
      << log;
  EXPECT_NE(log.find("it is tried again in 1 s"), std::string::npos) << log;
  const std::vector<std::string> errors = errors_in(log);
  ASSERT_EQ(errors.size(), 1u) << log;
  EXPECT_NE(errors[0].find("step 8: the checkpoint was not saved: "), std::string::npos) << log;
  EXPECT_NE(log.find("\nstep_00000003\n"), std::string::npos) << log;
  EXPECT_EQ(log.find("\n.step_"), std::string::npos) << "what was half written stayed: " << log;
}

// As torchrun --nproc-per-node 1 does: the launcher keeps the store.
TEST_F(BltTrainRanks, OneRankOfALauncherIsAGroup) {
  const auto store = tcp_store({.is_server = true});
  const auto train_as_rank = [&](uint16_t port) {
    const std::string command =
        "RANK=0 WORLD_SIZE=1 LOCAL_WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 TORCHELASTIC_USE_AGENT_STORE=True "
        "MASTER_PORT=" +
        std::to_string(port) + " " + BLT_BIN_DIR + "/blt_train " + file("run.yaml") +
        " output=" + file("ranked") +
        " parallel.sharding=zero3 parallel.tables=sharded parallel.start_timeout_s=1 2> " + file("log");
    return WEXITSTATUS(std::system(command.c_str()));
  };
  EXPECT_EQ(train_as_rank(1), 1) << "nobody keeps a store there";
  EXPECT_NE(content_of(folder_ / "log").find("rank 0 of 1: 127.0.0.1:1 cannot be reached"), std::string::npos)
      << content_of(folder_ / "log");
  ASSERT_EQ(train_as_rank(store->getPort()), 0) << content_of(folder_ / "log");
  ASSERT_EQ(train("alone", "").exit_code, 0);
  EXPECT_NEAR(validated("ranked"), validated("alone"), 1e-4);
}

TEST_F(BltTrainRanks, WithDifferentConfigsAreToldSo) {
  const pid_t first = start_rank(0, 2, 29625, ""), second = start_rank(1, 2, 29625, "train.log_every=3");
  EXPECT_EQ(exit_code_of(first), 1);
  EXPECT_EQ(exit_code_of(second), 1);
  const std::string said = content_of(folder_ / "log0") + content_of(folder_ / "log1");
  const std::vector<std::string> errors = errors_in(said);
  ASSERT_EQ(errors.size(), 1u) << said;
  EXPECT_NE(errors[0].find("rank 1 has another config than rank 0"), std::string::npos) << said;
  EXPECT_FALSE(fs::exists(folder_ / "out/step_00000008"));
}

TEST_F(BltTrainRanks, UnderTorchrunsEnvironmentRankZeroKeepsTheStore) {
  const std::vector<pid_t> ranks = start_ranks(2, 29618, "");
  for (const pid_t rank : ranks) EXPECT_EQ(exit_code_of(rank), 0) << content_of(folder_ / "log0");
  EXPECT_EQ(content_of(folder_ / "log1"), "") << "only rank 0 speaks";
  EXPECT_TRUE(fs::exists(folder_ / "out/step_00000008/config.json"));
  ASSERT_EQ(train("launched", "--nproc 2").exit_code, 0);
  expect_equal_checkpoints("out/step_00000008", "launched/step_00000008");
}

}  // namespace
}  // namespace blt
