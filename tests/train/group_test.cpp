// Ranks that find each other, pass tensors, and say what is wrong when they cannot.
#include "blt/train/group.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <thread>

#include "blt/train/group_layer.h"
#include "message.h"
#include "train/gradient_wire.h"
#include "train/ranks.h"

namespace blt {
namespace {

using testing::in_group;
using testing::on_ranks;

class Transfers : public testing::OnProcessors {};

TEST_P(Transfers, DoWhatTheirNamesSay) {
  for (const int64_t n : numbers_of_ranks(4))
    in_group(n, [&](const std::shared_ptr<Group>& group) {
      const int64_t r = group->rank();
      ASSERT_EQ(group->size(), n);
      const at::Device device = device_of(r);
      const auto expect = [](const at::Tensor& found, const at::Tensor& expected) {
        EXPECT_TRUE(torch::equal(found.cpu(), expected)) << found;
      };
      const at::Tensor numbers = torch::tensor({1.0, 10.0 * static_cast<double>(r)}, device);
      group->sum(numbers, "numbers")->wait();
      expect(numbers, torch::tensor({1.0 * static_cast<double>(n), 5.0 * static_cast<double>(n * (n - 1))}));

      const at::Tensor from_last = torch::full({3}, r, device);
      group->broadcast(from_last, n - 1, "from the last")->wait();
      expect(from_last, torch::full({3}, n - 1));

      // Part p of what rank r sends is 100 r + p.
      const at::Tensor sent = (torch::arange(n).repeat_interleave(2) + 100 * r).to(device);
      const at::Tensor reduced = torch::empty({2}, sent.options());
      group->reduce_scatter(reduced, sent, "parts")->wait();
      expect(reduced, torch::full({2}, n * r + 50 * n * (n - 1)));
      const at::Tensor gathered = torch::empty({2 * n}, sent.options());
      group->all_gather(gathered, reduced, "all")->wait();
      expect(gathered, (torch::arange(n) * n + 50 * n * (n - 1)).repeat_interleave(2));
      const at::Tensor exchanged = torch::empty({2 * n}, sent.options());
      group->all_to_all(exchanged, sent, "exchange")->wait();
      expect(exchanged, (torch::arange(n) * 100 + r).repeat_interleave(2));

      // Rank r sends r + p rows (r, p) to rank p.
      ExchangeCounts counts;
      std::vector<at::Tensor> rows, expected;
      for (int64_t p = 0; p < n; ++p) {
        counts.sent.push_back(r + p);
        counts.received.push_back(p + r);
        rows.push_back(torch::tensor({r, p}, torch::kInt).expand({r + p, 2}));
        expected.push_back(torch::tensor({p, r}, torch::kInt).expand({p + r, 2}));
      }
      const at::Tensor came =
          torch::empty({counts.total_received(), 2}, at::TensorOptions(device).dtype(torch::kInt));
      group->all_to_all(came, torch::cat(rows).contiguous().to(device), counts, "rows")->wait();
      expect(came, torch::cat(expected));
      group->barrier("end");
    });
}

// Of the host's memory.
TEST(Group, TextsAreGatheredInTheOrderOfTheRanks) {
  for (const int64_t n : {1, 2, 3, 4})
    in_group(n, [&](const std::shared_ptr<Group>& group) {
      const int64_t r = group->rank();
      const std::vector<std::string> texts =
          gather(*group, std::string(static_cast<size_t>(r), 'x'), "texts");
      ASSERT_EQ(texts.size(), static_cast<size_t>(n));
      for (size_t i = 0; i < texts.size(); ++i) EXPECT_EQ(texts[i], std::string(i, 'x'));
      // One text that is longer than all others together.
      const auto long_of = [](int64_t rank) { return rank == 1 ? std::string(1000, 'y') : "x"; };
      const std::vector<std::string> lopsided = gather(*group, long_of(r), "texts");
      for (int64_t p = 0; p < n; ++p) EXPECT_EQ(lopsided[static_cast<size_t>(p)], long_of(p));
      for (const std::string& none : gather(*group, "", "texts")) EXPECT_EQ(none, "");
      group->barrier("end");
    });
}

// Sums of floats depend on their order: it has to be one.
TEST_P(Transfers, SumsAreTheSameOnAllRanksAndEveryTime) {
  const int64_t n = ranks(3);
  std::vector<at::Tensor> results;
  for (int repeat = 0; repeat < 2; ++repeat) {
    std::vector<at::Tensor> sums(static_cast<size_t>(n));
    in_group(n, [&](const std::shared_ptr<Group>& group) {
      at::Generator generator = at::detail::createCPUGenerator(static_cast<uint64_t>(group->rank()) + 1);
      std::vector<at::Tensor> tensors;
      std::vector<Group::Pending> coming;
      for (int i = 0; i < 8; ++i)
        tensors.push_back(at::randn({10007}, generator).to(device_of(group->rank())));
      for (const at::Tensor& tensor : tensors) coming.push_back(group->sum(tensor, "numbers"));
      for (const auto& one : coming) one->wait();
      sums[static_cast<size_t>(group->rank())] = torch::cat(tensors).cpu();
    });
    results.insert(results.end(), sums.begin(), sums.end());
  }
  for (const at::Tensor& sum : results) EXPECT_TRUE(torch::equal(sum, results[0]));
}

BLT_ON_PROCESSORS(Transfers);

// Sums of bfloat16 parts, float32 and in the order of the ranks: to the bit.
TEST(GradientWire, AddsUpRoundedPartsInTheOrderOfTheRanks) {
  constexpr int64_t kRanks = 3, kCount = 3 * 1001, kBuckets = 5;
  const auto part = [](int64_t rank, int64_t bucket) {
    at::Generator generator = at::detail::createCPUGenerator(static_cast<uint64_t>(10 * bucket + rank) + 1);
    return at::randn({kCount}, generator);
  };
  const auto rounded = [](const at::Tensor& x) { return x.to(torch::kBFloat16).to(torch::kFloat); };
  in_group(kRanks, [&](const std::shared_ptr<Group>& group) {
    GradientWire wire(*group, WireType::kBfloat16);
    std::vector<at::Tensor> sums, shares;
    std::vector<Group::Pending> coming;
    for (int64_t b = 0; b < kBuckets; ++b) {
      sums.push_back(part(group->rank(), b));
      coming.push_back(wire.sum(sums.back(), "sum"));
    }
    for (int64_t b = 0; b < kBuckets; ++b) {
      shares.push_back(torch::empty({kCount / kRanks}));
      coming.push_back(wire.reduce_scatter(shares.back(), part(group->rank(), b), "share"));
    }
    for (const auto& one : coming) one->wait();
    for (int64_t b = 0; b < kBuckets; ++b) {
      const at::Tensor total = rounded(part(0, b)) + rounded(part(1, b)) + rounded(part(2, b));
      EXPECT_TRUE(torch::equal(sums[static_cast<size_t>(b)], rounded(total))) << b;
      EXPECT_TRUE(torch::equal(shares[static_cast<size_t>(b)], total.view({kRanks, -1})[group->rank()])) << b;
    }
  });
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST(DelayedGroup, BytesTakeTheirTimeOneTransferAfterTheOther) {
  in_group(2, [](const std::shared_ptr<Group>& group) {
    std::vector<DelayedGroup::Carried> carried;
    WatchedGroup slow(
        std::make_shared<DelayedGroup>(group, LinkSpeed{.latency_s = 0.01, .bytes_per_s = 2e5},
                                       [&](const DelayedGroup::Carried& one) { carried.push_back(one); }));
    group->barrier("start");
    const auto start = std::chrono::steady_clock::now();
    const at::Tensor numbers = torch::ones({25000});  // 100,000 bytes: a sum of two ranks sends as many
    const Group::Pending first = slow.sum(numbers, "first");
    const at::Tensor parts = torch::ones({2, 12500}), exchanged = torch::empty({2, 12500});
    const Group::Pending second =
        slow.all_to_all(exchanged, parts, "second");  // 50,000 of them to the other rank
    EXPECT_LT(seconds_since(start), 0.5) << "beginning a transfer does not wait";
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    const double meanwhile = seconds_since(start);
    first->wait();
    EXPECT_GE(seconds_since(start), 0.51);
    second->wait();
    EXPECT_GE(seconds_since(start), 0.77);
    EXPECT_TRUE(torch::equal(numbers, torch::full({25000}, 2.0)));
    EXPECT_TRUE(torch::equal(exchanged, parts));
    const double waited = slow.take_waits().seconds();
    EXPECT_GE(waited, 0.6 - meanwhile);
    EXPECT_LE(waited, seconds_since(start) - meanwhile) << "what was done meanwhile is no waiting";
    EXPECT_EQ(slow.take_waits().seconds(), 0);
    ASSERT_EQ(carried.size(), 2u);
    EXPECT_EQ(carried[0].bytes, 100000);
    EXPECT_EQ(carried[1].bytes, 50000);
    EXPECT_EQ(carried[0].until, carried[1].from);

    // What goes to one rank alone counts, in the direction that has more.
    const bool is_first = group->is_first();
    const ExchangeCounts used = is_first ? ExchangeCounts{.sent = {4, 30}, .received = {4, 10}}
                                         : ExchangeCounts{.sent = {10, 5}, .received = {30, 5}};
    slow.all_to_all(torch::empty({used.total_received(), 3}), torch::ones({used.total_sent(), 3}), used,
                    "rows")
        ->wait();
    EXPECT_EQ(carried.back().bytes, 30 * 3 * 4);
  });
}

TEST(Group, SaysWhichRanksDidNotCome) {
  const std::vector<std::string> errors = on_ranks(3, [](const RankPlace& place) {
    RankPlace elsewhere = place;
    elsewhere.ranks = 4;
    if (place.rank != 1) join(elsewhere, {.start_s = 1, .transfer_s = 1});
  });
  const std::string expected = "of 4 ranks, 1, 3 did not come to 127.0.0.1:";
  EXPECT_NE(errors[0].find(expected), std::string::npos) << errors[0];
  EXPECT_NE(errors[0].find("there are: 0, 2"), std::string::npos) << errors[0];
  EXPECT_NE(errors[2].find(expected), std::string::npos) << errors[2];
}

TEST(Group, SaysThatTheStoreCannotBeReached) {
  EXPECT_MESSAGE(
      join({.rank = 1, .ranks = 2, .host = "127.0.0.1", .port = 1}, {.start_s = 1, .transfer_s = 1}),
      "rank 1 of 2: 127.0.0.1:1 cannot be reached within 1 s");
}

// A port where connections are taken, as the system does for a process that was stopped, and nobody reads.
class SilentPort {
 public:
  SilentPort() {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    if (bind(socket_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(socket_, 8) != 0 ||
        getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      ADD_FAILURE() << "no port";
    number_ = ntohs(address.sin_port);
  }
  ~SilentPort() { close(socket_); }
  SilentPort(const SilentPort&) = delete;
  SilentPort& operator=(const SilentPort&) = delete;

  uint16_t number() const { return number_; }

 private:
  int socket_ = socket(AF_INET, SOCK_STREAM, 0);
  uint16_t number_ = 0;
};

TEST(Group, SaysWhoKeepsAStoreThatDoesNotAnswer) {
  const SilentPort port;
  const RankPlace place = {.rank = 1, .ranks = 2, .port = port.number()};
  const auto start = std::chrono::steady_clock::now();
  EXPECT_MESSAGE(join(place, {.start_s = 1, .transfer_s = 1}),
                 "rank 1 of 2: rank 0, which keeps the store at 127.0.0.1:" + std::to_string(port.number()) +
                     ", does not answer");
  RankPlace of_launcher = place;
  of_launcher.launcher_keeps_store = true;
  EXPECT_MESSAGE(join(of_launcher, {.start_s = 1, .transfer_s = 1}),
                 "rank 1 of 2: the launcher, which keeps ");
  EXPECT_LT(seconds_since(start), 60);
}

TEST(Group, ALossBeforeAllHaveComeIsSaidOnce) {
  auto store = tcp_store({.is_server = true});
  const uint16_t port = store->getPort();
  const std::string lost = "rank 0, which keeps the store at 127.0.0.1:" + std::to_string(port) + ", is gone";
  std::atomic<int> said = 0, told = 0;
  std::vector<std::thread> threads;
  for (const int64_t rank : {1, 2})  // rank 0 keeps the store, and is not ready itself
    threads.emplace_back([&, rank] {
      try {
        join({.rank = rank, .ranks = 3, .port = port}, {.start_s = 60, .transfer_s = 1});
      } catch (const FailureTold&) {
        ++told;
      } catch (const Error& e) {
        ++said;
        EXPECT_NE(std::string(e.what()).find(lost), std::string::npos) << e.what();
      }
    });
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // both have come, and look now and then
  store.reset();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(said, 1);
  EXPECT_EQ(told, 1);
}

TEST(Group, NamesTheRankAndTheTransferThatAreStuck) {
  std::vector<int> first(3);
  const std::vector<std::string> errors = on_ranks(3, [&](const RankPlace& place) {
    const std::shared_ptr<Group> group = join(place, {.start_s = 60, .transfer_s = 2});
    group->barrier("start");
    if (place.rank == 2) {
      std::this_thread::sleep_for(std::chrono::seconds(8));
      return;
    }
    try {
      group->sum(torch::ones({4}), "gradients, 1 of 3")->wait();
    } catch (const GroupError& e) {
      first[static_cast<size_t>(place.rank)] = group->claim_failure(e.what()) ? 1 : 0;
      throw;
    }
  });
  for (const size_t r : {0, 1}) {
    EXPECT_NE(errors[r].find("rank 2 is busy since transfer 1 (start)"), std::string::npos) << errors[r];
    EXPECT_NE(errors[r].find("transfer 2 (gradients, 1 of 3)"), std::string::npos) << errors[r];
  }
  EXPECT_EQ(errors[2], "");
  EXPECT_EQ(first[0] + first[1], 1) << "one of them says it";
}

TEST(Group, TheFirstFailureIsWhatAllSay) {
  std::vector<int> first(3);
  const std::vector<std::string> errors = on_ranks(3, [&](const RankPlace& place) {
    const std::shared_ptr<Group> group = join(place, {.start_s = 60, .transfer_s = 1});
    if (place.rank == 1) {
      first[1] = group->claim_failure("the file is missing") ? 1 : 0;
      std::this_thread::sleep_for(std::chrono::seconds(3));
      return;
    }
    try {
      group->barrier("step");
    } catch (const GroupError& e) {
      first[static_cast<size_t>(place.rank)] = group->claim_failure(e.what()) ? 1 : 0;
      throw;
    }
  });
  EXPECT_EQ(first, (std::vector<int>{0, 1, 0}));
  for (const size_t r : {0, 2}) EXPECT_EQ(errors[r], "rank 1: the file is missing");
}

// As under torchrun --max-restarts, whose store outlives the ranks.
TEST(Group, ALaterStartMeetsNothingOfAnEarlierOne) {
  const std::vector<std::string> errors = on_ranks(2, [](const RankPlace& place) {
    const GroupTimeouts timeouts{.start_s = 60, .transfer_s = 60};
    for (int64_t attempt = 0; attempt < 3; ++attempt) {
      RankPlace own = place;
      own.attempt = attempt;
      const auto group = join(own, timeouts);
      group->barrier("all are there");
      if (place.rank == attempt % 2) group->claim_failure("the end of this start");
    }
  });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

std::optional<RankPlace> place_in(const std::map<std::string, std::string>& variables) {
  return rank_place([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  });
}

TEST(RankPlace, IsWhatTheLauncherSays) {
  EXPECT_FALSE(place_in({}));
  EXPECT_FALSE(place_in({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}))
      << "a batch script is no step of srun";

  const auto torchrun = place_in({{"RANK", "5"},
                                  {"WORLD_SIZE", "8"},
                                  {"LOCAL_RANK", "1"},
                                  {"LOCAL_WORLD_SIZE", "4"},
                                  {"MASTER_ADDR", "node1"},
                                  {"MASTER_PORT", "1234"}});
  ASSERT_TRUE(torchrun);
  EXPECT_EQ(torchrun->rank, 5);
  EXPECT_EQ(torchrun->ranks, 8);
  EXPECT_EQ(torchrun->local_rank, 1);
  EXPECT_EQ(torchrun->local_ranks, 4);
  EXPECT_EQ(torchrun->host, "node1");
  EXPECT_EQ(torchrun->port, 1234);
  EXPECT_FALSE(torchrun->keeps_store());
  const std::map<std::string, std::string> first = {
      {"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}};
  EXPECT_TRUE(place_in(first)->keeps_store());
  auto agent = first;
  agent["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  EXPECT_FALSE(place_in(agent)->keeps_store());
  EXPECT_EQ(place_in(agent)->attempt, 0);
  agent["TORCHELASTIC_RESTART_COUNT"] = "2";
  EXPECT_EQ(place_in(agent)->attempt, 2);

  const auto srun = place_in({{"SLURM_PROCID", "3"},
                              {"SLURM_STEP_NUM_TASKS", "8"},
                              {"SLURM_LOCALID", "1"},
                              {"SLURM_STEP_NUM_NODES", "4"},
                              {"SLURM_STEP_NODELIST", "gpu[07-09,12],other3"}});
  ASSERT_TRUE(srun);
  EXPECT_EQ(srun->rank, 3);
  EXPECT_EQ(srun->local_rank, 1);
  EXPECT_EQ(srun->host, "gpu07");
  const auto first_of = [](const std::string& nodes) {
    return place_in({{"SLURM_PROCID", "0"},
                     {"SLURM_STEP_NUM_TASKS", "8"},
                     {"SLURM_STEP_NUM_NODES", "4"},
                     {"SLURM_STEP_NODELIST", nodes}})
        ->host;
  };
  EXPECT_EQ(first_of("node[1-2]-ib"), "node1-ib");
  EXPECT_EQ(first_of("node[1-2]-ib,other"), "node1-ib");
  EXPECT_EQ(first_of("a,b[1-2]"), "a");
  EXPECT_EQ(srun->port, 29500);
  EXPECT_EQ(srun->job, "");
  // Two jobs on one machine meet at different places.
  const auto of_job = [](const std::string& job, const std::string& step) {
    return *place_in({{"SLURM_PROCID", "0"},
                      {"SLURM_STEP_NUM_TASKS", "1"},
                      {"SLURM_JOB_ID", job},
                      {"SLURM_STEP_ID", step}});
  };
  EXPECT_EQ(of_job("4711", "0").job, "4711.0");
  EXPECT_EQ(of_job("4711", "0").port, 34211);
  EXPECT_NE(of_job("4711", "1").port, of_job("4711", "0").port);
  EXPECT_NE(of_job("4712", "0").port, of_job("4711", "0").port);

  const auto mpirun = place_in({{"OMPI_COMM_WORLD_RANK", "1"},
                                {"OMPI_COMM_WORLD_SIZE", "2"},
                                {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  ASSERT_TRUE(mpirun);
  EXPECT_EQ(mpirun->host, "127.0.0.1");
  EXPECT_EQ(mpirun->local_ranks, 2);

  const auto mpiexec =
      place_in({{"PMI_RANK", "3"}, {"PMI_SIZE", "4"}, {"MPI_LOCALRANKID", "3"}, {"MPI_LOCALNRANKS", "4"}});
  ASSERT_TRUE(mpiexec);
  EXPECT_EQ(mpiexec->rank, 3);
  EXPECT_EQ(mpiexec->ranks, 4);
  EXPECT_EQ(mpiexec->local_rank, 3);
  EXPECT_EQ(mpiexec->host, "127.0.0.1");
  EXPECT_TRUE(place_in({{"PMI_RANK", "0"}, {"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}}));
}

TEST(RankPlace, NamesTheVariableThatMakesNoSense) {
  EXPECT_MESSAGE(place_in({{"RANK", "two"}, {"WORLD_SIZE", "2"}}), "RANK is 'two'");
  EXPECT_MESSAGE(place_in({{"RANK", "2"}, {"WORLD_SIZE", "2"}}), "RANK is '2', not a number from 0 to 1");
  EXPECT_MESSAGE(place_in({{"RANK", "0"}, {"WORLD_SIZE", "0"}}), "WORLD_SIZE is '0'");
  EXPECT_MESSAGE(place_in({{"OMPI_COMM_WORLD_RANK", "1"},
                           {"OMPI_COMM_WORLD_SIZE", "4"},
                           {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}}),
                 "MASTER_ADDR");
}

}  // namespace
}  // namespace blt
