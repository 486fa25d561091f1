// Ranks in one process: a thread for each, with real transports on loopback between them.
#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

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

}  // namespace blt::testing
