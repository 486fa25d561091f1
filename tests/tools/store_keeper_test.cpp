// Who keeps the store in which ranks meet hangs or is killed: the others say so once, in time, and save where they can.
#include <filesystem>
#include <string>
#include <vector>

#include "tools/train_ranks.h"
#include "train/tcp_store.h"

namespace blt {
namespace {

namespace fs = std::filesystem;

// A run that goes on until something happens, whose transfers may take this long.
const std::string kRun =
    "entropy_model=null 'patching={rule: {kind: space}}' train.steps=1000000 train.checkpoint_every=5 "
    "parallel.timeout_s=2 ";

class StoreKeeper : public TrainRanksTest {
 protected:
  static void expect_once(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
    EXPECT_EQ(text.find(part), text.rfind(part)) << part << "\n" << text;
  }

  // Rank 0 keeps the store, and `signal` comes to it. Two others cannot go on.
  void expect_rank_0_named(uint16_t port, int signal, const std::string& what) {
    const std::vector<pid_t> ranks = start_ranks(3, port, kRun);
    wait_for(folder_ / "out/step_00000005/config.json");
    kill(ranks[0], signal);
    EXPECT_EQ(exit_code_of(ranks[1]), 1);
    EXPECT_EQ(exit_code_of(ranks[2]), 1);
    kill(ranks[0], SIGKILL);
    status_of(ranks[0]);
    const std::vector<std::string> errors = errors_in(said_by_ranks(3));
    ASSERT_EQ(errors.size(), 1u) << said_by_ranks(3);
    EXPECT_NE(
        errors[0].find("rank 0, which keeps the store at 127.0.0.1:" + std::to_string(port) + ", " + what),
        std::string::npos)
        << errors[0];
    EXPECT_NE(errors[0].find("did not come through"), std::string::npos) << errors[0];
    EXPECT_NE(errors[0].find("--resume auto"), std::string::npos) << errors[0];
  }
};

TEST_F(StoreKeeper, RankZeroThatHangsIsNamedOnce) { expect_rank_0_named(29621, SIGSTOP, "does not answer"); }

TEST_F(StoreKeeper, RankZeroThatIsKilledIsNamedOnce) { expect_rank_0_named(29622, SIGKILL, "is gone"); }

TEST_F(StoreKeeper, RanksOfALauncherThatHangsSaveAndStop) {
  const pid_t launcher = start("out", kRun + "train.checkpoint_every=0 --nproc 2");
  wait_for(folder_ / "out/metrics.jsonl");
  const std::vector<pid_t> ranks = ranks_of(launcher);
  ASSERT_EQ(ranks.size(), 2u);
  kill(launcher, SIGSTOP);
  for (const pid_t rank : ranks)
    EXPECT_TRUE(becomes([&] { return !runs(rank); })) << content_of(folder_ / "log");
  kill(launcher, SIGCONT);
  EXPECT_EQ(exit_code_of(launcher), 3);
  const std::string log = content_of(folder_ / "log");
  expect_once(log, "the launcher, which keeps the store at 127.0.0.1:");
  expect_once(log, "does not answer");
  expect_once(log, "the training is saved and stops");
  EXPECT_TRUE(fs::exists(folder_ / "out/latest/config.json")) << log;
}

// As of torchrun, whose ranks no signal reaches when it is killed.
TEST_F(StoreKeeper, RanksOfALauncherThatIsGoneSaveAndStop) {
  auto store = tcp_store({.is_server = true});
  const std::vector<pid_t> ranks = start_ranks(2, store->getPort(), kRun + "train.checkpoint_every=0",
                                               "TORCHELASTIC_USE_AGENT_STORE=True");
  wait_for(folder_ / "out/metrics.jsonl");
  store.reset();
  for (const pid_t rank : ranks) EXPECT_EQ(exit_code_of(rank), 3) << said_by_ranks(2);
  expect_once(said_by_ranks(2), "the launcher, which keeps the store at 127.0.0.1:");
  expect_once(said_by_ranks(2), "is gone");
  EXPECT_TRUE(fs::exists(folder_ / "out/latest/config.json")) << said_by_ranks(2);
}

}  // namespace
}  // namespace blt
