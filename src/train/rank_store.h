// What ranks tell each other when something is wrong: through the TCP store, which works when the transport does not.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "blt/train/rendezvous.h"

namespace blt {

// Every function returns in bounded time, even when whoever keeps the store hangs: it is then taken for unreachable. Thread-safe.
class RankStore {
 public:
  RankStore(c10::intrusive_ptr<c10d::Store> store, RankPlace place);
  ~RankStore();
  RankStore(const RankStore&) = delete;
  RankStore& operator=(const RankStore&) = delete;

  const RankPlace& place() const { return place_; }
  const c10::intrusive_ptr<c10d::Store>& store() const { return store_; }

  // "I have come to this"; whether all have, in one question of a few bytes; and the ranks that have not, in increasing order. None: the store
  // cannot be reached, or does not answer, for `patience` where that is longer than usual.
  void announce(const std::string& what);
  std::optional<bool> all_announced(const std::string& what, std::chrono::milliseconds patience = {});
  std::optional<std::vector<int64_t>> not_announced(const std::string& what);

  // From now on, a thread says what this rank is doing when another asks.
  void answer_with(std::function<std::string()> doing);
  // Asks all ranks, and waits that long for those that answer. What each is doing, none of those that do not answer. No ranks: the store
  // cannot be reached.
  std::vector<std::optional<std::string>> ask_all(std::chrono::milliseconds wait);

  // The first failure that a rank or the launcher has told; waits for it that long.
  std::optional<std::string> failure(std::chrono::milliseconds wait);
  // Whether this is the first one, or nobody can be asked.
  bool claim_failure(const std::string& message);

 private:
  void answer(c10d::Store& store, const std::function<std::string()>& doing);
  // The rank that keeps the store stays until the others have read what they want to know, for seconds at most.
  void linger();

  c10::intrusive_ptr<c10d::Store> store_;
  RankPlace place_;
  std::mutex mutex_;
  std::condition_variable end_;
  bool ending_ = false;
  std::thread answering_;
};

// For whoever runs the store for the ranks.
bool claim_failure(c10d::Store& store, const std::string& message);

// "0, 1, 3"
std::string list_ranks(const std::vector<int64_t>& ranks);

}  // namespace blt
