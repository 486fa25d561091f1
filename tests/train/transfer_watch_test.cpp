// Transfers that a device waits for, and that do not end.
#include "train/transfer_watch.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "train/c10d_group.h"
#include "train/rank_store.h"
#include "train/ranks.h"
#include "train/tcp_store.h"

namespace blt {
namespace {

using namespace std::chrono_literals;
using Trouble = TransferWatch::Trouble;

// A device that has come past the transfers up to this one.
struct FakeDevice {
  int64_t past = 0;
  std::function<bool()> is_past(int64_t number) {
    return [this, number] { return past >= number; };
  }
};

class Watching : public ::testing::Test {
 protected:
  static TransferWatch::Transfer transfer(int64_t number) {
    return {.number = number, .what = "gradients, " + std::to_string(number)};
  }
  void wait_for(int64_t number, TransferWatch::Clock::duration after) {
    watch_.watch(transfer(number), device_.is_past(number), start_ + after);
  }
  // What is found then: "" for nothing.
  std::string found(TransferWatch::Clock::duration after) {
    watch_.look(start_ + after);
    const auto trouble = watch_.trouble(start_ + after);
    return trouble ? trouble->transfer.what + ": " + trouble->reason : "";
  }

  TransferWatch watch_{10s};
  FakeDevice device_;
  TransferWatch::Clock::time_point start_ = TransferWatch::Clock::now();
};

TEST_F(Watching, NamesTheOldestTransferThatTakesTooLong) {
  EXPECT_EQ(found(100s), "") << "there is none";
  wait_for(1, 100s);
  wait_for(2, 101s);
  EXPECT_EQ(found(109s), "");
  EXPECT_EQ(found(110s), "gradients, 1: the device waits for it");
}

TEST_F(Watching, CountsFromWhereTheOneBeforeWasDone) {
  wait_for(1, 0s);
  wait_for(2, 0s);
  device_.past = 1;
  EXPECT_EQ(found(8s), "");
  EXPECT_EQ(found(17s), "");
  EXPECT_EQ(found(18s), "gradients, 2: the device waits for it");
  device_.past = 2;
  EXPECT_EQ(found(19s), "") << "it was slow";
  wait_for(3, 100s);
  EXPECT_EQ(found(109s), "");
  EXPECT_EQ(found(110s), "gradients, 3: the device waits for it");
}

TEST_F(Watching, ACallThatDoesNotReturnIsNamed) {
  watch_.begin(transfer(1), start_);
  EXPECT_EQ(found(9s), "");
  EXPECT_EQ(found(10s), "gradients, 1: the call that begins it does not return");
  watch_.forget(1);
  EXPECT_EQ(found(100s), "") << "nobody waits for it yet";
}

TEST_F(Watching, AFailureIsFoundAtOnce) {
  watch_.watch(
      transfer(1), []() -> bool { throw Error("the connection is lost"); }, start_);
  EXPECT_EQ(found(0s), "gradients, 1: the connection is lost");
}

// cudaEventQuery() may hang with the device.
TEST(TransferWatch, ADeviceThatDoesNotAnswerIsFoundToo) {
  std::promise<void> let_go;
  std::promise<std::string> found;
  {
    TransferWatch watch(300ms);
    watch.start([&](const Trouble& trouble) { found.set_value(trouble.transfer.what); });
    watch.watch({.number = 1, .what = "rows"}, [future = let_go.get_future().share()] {
      future.wait();
      return true;
    });
    std::future<std::string> name = found.get_future();
    ASSERT_EQ(name.wait_for(20s), std::future_status::ready);
    EXPECT_EQ(name.get(), "rows");
    let_go.set_value();
  }
}

// A backend whose wait() returns at once, as those of devices do.
class DeviceBackend : public c10d::Backend {
 public:
  enum class Fault { kNone, kHangsInTheCall, kLosesAConnection };
  DeviceBackend(const RankPlace& place, Fault fault)
      : Backend(static_cast<int>(place.rank), static_cast<int>(place.ranks)), fault_(fault) {}

  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>&, const c10d::AllreduceOptions&) override {
    if (fault_ == Fault::kHangsInTheCall) {
      std::unique_lock lock(mutex_);
      ended_.wait(lock, [this] { return has_ended_; });
    }
    return c10::make_intrusive<Done>();
  }
  c10d::ErrorType getError() override {
    return fault_ == Fault::kLosesAConnection ? c10d::ErrorType::COMM_ERROR : c10d::ErrorType::SUCCESS;
  }
  void let_go() {
    const std::lock_guard lock(mutex_);
    has_ended_ = true;
    ended_.notify_all();
  }

 private:
  struct Done : c10d::Work {
    bool wait(std::chrono::milliseconds) override { return true; }
  };
  Fault fault_;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool has_ended_ = false;
};

// What rank 0 says to end its process, whose first transfer has this fault. Rank 1 does not come to it.
std::string last_words(DeviceBackend::Fault fault) {
  std::string said;
  std::promise<void> end;
  const std::shared_future<void> is_over = end.get_future().share();
  const std::vector<std::string> errors = testing::on_ranks(2, [&](const RankPlace& place) {
    const auto backend = c10::make_intrusive<DeviceBackend>(place, fault);
    std::promise<std::string> words;
    const auto connect = [&] { return store_of_start(tcp_store({.port = place.port})); };
    C10dGroup group({{c10::kCPU, {.make = [&] { return backend; }, .is_of_device = true}}},
                    std::make_unique<RankStore>(connect(), place), connect(), /*timeout_s=*/1,
                    [&](const std::string& message) {
                      words.set_value(message);
                      backend->let_go();
                    });
    if (place.rank == 0) {
      group.sum(torch::ones({4}), "gradients, 1 of 3")->wait();
      std::future<std::string> word = words.get_future();
      if (word.wait_for(fault == DeviceBackend::Fault::kNone ? 2s : 30s) == std::future_status::ready)
        said = word.get();
      end.set_value();
    }
    is_over.wait();
  });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
  return said;
}

TEST(TransferWatch, TheGroupNamesRankAndTransfer) {
  EXPECT_EQ(last_words(DeviceBackend::Fault::kNone), "");
  for (const auto& [fault, reason] :
       {std::pair{DeviceBackend::Fault::kHangsInTheCall, "the call that begins it does not return"},
        std::pair{DeviceBackend::Fault::kLosesAConnection, "the connection to another rank is lost"}}) {
    const std::string said = last_words(fault);
    EXPECT_NE(said.find("rank 1 is busy since transfer 0"), std::string::npos) << said;
    EXPECT_NE(said.find("the others wait in transfer 1 (gradients, 1 of 3)"), std::string::npos) << said;
    EXPECT_NE(said.find("1 s (parallel.timeout_s)"), std::string::npos) << said;
    EXPECT_NE(said.find(reason), std::string::npos) << said;
  }
}

}  // namespace
}  // namespace blt
