// Ranks in one process: a thread for each, with real transports on loopback between them, or between GPUs.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "blt/base/error.h"
#include "blt/model/device.h"
#include "blt/train/rendezvous.h"
#include "train/tcp_store.h"

namespace blt::testing {

// Where ranks meet, while one lives.
class MeetingPlace {
 public:
  MeetingPlace() {
    wait_little_for_names();
    store_ = tcp_store({.is_server = true});
  }
  RankPlace of(int64_t rank, int64_t ranks) const {
    return {.rank = rank,
            .ranks = ranks,
            .local_rank = rank,
            .local_ranks = ranks,
            .port = store_->getPort(),
            .launcher_keeps_store = true};
  }

 private:
  c10::intrusive_ptr<c10d::TCPStore> store_;
};

// Calls `body` on so many threads, each with its rank's place. Gives what each threw: "" for nothing.
inline std::vector<std::string> on_ranks(int64_t ranks, const std::function<void(const RankPlace&)>& body) {
  const MeetingPlace meeting;
  std::vector<std::string> errors(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      try {
        body(meeting.of(rank, ranks));
      } catch (const std::exception& e) {
        errors[static_cast<size_t>(rank)] = e.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return errors;
}

// The same with a group, which must not throw.
inline void in_group(int64_t ranks, const std::function<void(const std::shared_ptr<Group>&)>& body) {
  const GroupTimeouts timeouts{.start_s = 60, .transfer_s = 60};
  const std::vector<std::string> errors =
      on_ranks(ranks, [&](const RankPlace& place) { body(join(place, timeouts)); });
  for (size_t r = 0; r < errors.size(); ++r) EXPECT_EQ(errors[r], "") << "rank " << r;
}

// Tests of ranks that compute on the host, over Gloo, or on GPUs, each on its own, over NCCL (not yet run).
class OnProcessors : public ::testing::TestWithParam<at::DeviceType> {
 protected:
  void SetUp() override {
    if (GetParam() == at::kCUDA) try {
        find_device("cuda", "this test");
      } catch (const Error& why) {
        GTEST_SKIP() << why.what();
      }
  }
  at::Device device_of(int64_t rank) const {
    return GetParam() == at::kCPU ? at::Device(at::kCPU)
                                  : at::Device(GetParam(), static_cast<at::DeviceIndex>(rank));
  }
  // So many, or as many as there are processors for: one over a transport takes the ways of many.
  int64_t ranks(int64_t wanted) const {
    return GetParam() == at::kCPU ? wanted : std::min<int64_t>(wanted, torch::cuda::device_count());
  }
  // Up to so many.
  std::vector<int64_t> numbers_of_ranks(int64_t most) const {
    std::vector<int64_t> numbers;
    for (int64_t number = 1; number <= ranks(most); ++number) numbers.push_back(number);
    return numbers;
  }
};

inline std::string processor_name(const ::testing::TestParamInfo<at::DeviceType>& of) {
  return of.param == at::kCPU ? "Cpu" : "Cuda";
}

}  // namespace blt::testing

// Of a class of OnProcessors.
#define BLT_ON_PROCESSORS(Suite) \
  INSTANTIATE_TEST_SUITE_P(, Suite, ::testing::Values(at::kCPU, at::kCUDA), ::blt::testing::processor_name)
