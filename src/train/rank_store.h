// What ranks tell each other when something is wrong: through the TCP store, which works when the transport does not.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "blt/train/rendezvous.h"
#include "train/spare_store.h"

namespace blt {

// Every function returns in bounded time, even when whoever keeps the store hangs: it is then taken for lost. Thread-safe.
class RankStore {
 public:
  RankStore(c10::intrusive_ptr<c10d::Store> store, RankPlace place);
  ~RankStore();
  RankStore(const RankStore&) = delete;
  RankStore& operator=(const RankStore&) = delete;

  const RankPlace& place() const { return place_; }
  const c10::intrusive_ptr<c10d::Store>& store() const { return store_; }

  // "I have come to this"; whether all have, in one question of a few bytes; and the ranks that have not, in increasing order. None: the store
  // is lost; it is given `patience` where that is longer than usual.
  void announce(const std::string& what);
  std::optional<bool> all_announced(const std::string& what, std::chrono::milliseconds patience = {});
  std::optional<std::vector<int64_t>> not_announced(const std::string& what);

  // The last rank opens the spare before it announces that it is there; the others look for it when all have. Until then there is none.
  void open_spare();
  void find_spare();

  struct Listening {
    std::function<std::string()> doing;  // what this rank says when another asks
    std::chrono::milliseconds patience;  // with a store that does not answer
    std::function<void()> on_lost;       // called once, where it is lost
  };
  // From now on a thread listens to the store, by a connection of its own, which no other question keeps waiting.
  void listen(Listening to, c10::intrusive_ptr<c10d::Store> connection);
  // Asks all ranks, and waits that long for those that answer. What each is doing, none of those that do not answer. No ranks: the store
  // is lost.
  std::vector<std::optional<std::string>> ask_all(std::chrono::milliseconds wait);

  // The first failure that a rank or the launcher has told; waits for it that long.
  std::optional<std::string> failure(std::chrono::milliseconds wait);
  // Whether this is the first one, or nobody can be asked.
  bool claim_failure(const std::string& message);
  // Of a failure that all ranks see, where the store is lost: whether this rank is the first to say so.
  bool claim_loss();
  // Says so, of a store that is lost.
  std::string loss() const;

 private:
  // Questions to the store that have no answer yet.
  struct Line {
    std::mutex mutex;
    int64_t unanswered = 0;
    std::chrono::steady_clock::time_point silent_since;
    bool is_closed = false;
  };
  // The answer; none where there is none for so long: to this question, or to those before it.
  template <class Question>
  auto ask(Question question, std::chrono::milliseconds patience) const
      -> std::optional<decltype(question(std::declval<c10d::Store&>()))>;
  void hear(const Listening& to, const c10::intrusive_ptr<c10d::Store>& store);
  bool ends_within(std::chrono::milliseconds time);
  // The rank that keeps the store stays until the others have read what they want to know, for seconds at most.
  void linger();

  c10::intrusive_ptr<c10d::Store> store_;
  RankPlace place_;
  std::shared_ptr<Line> line_ = std::make_shared<Line>();  // questions that hang outlive this
  std::unique_ptr<SpareStore> spare_;
  std::mutex mutex_;
  std::condition_variable end_;
  bool ending_ = false;
  std::thread listening_;
};

// Who keeps the store, and what has become of it.
enum class Loss { kSilent, kClosed };
std::string describe(Loss loss, const RankPlace& place);

// For whoever runs the store for the ranks.
bool claim_failure(c10d::Store& store, const std::string& message);

// "0, 1, 3"
std::string list_ranks(const std::vector<int64_t>& ranks);

}  // namespace blt
