#include "train/rank_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <future>
#include <memory>
#include <thread>
#include <utility>

namespace blt {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kAnswerTime(5000);  // of the store
constexpr milliseconds kPollInterval(20);
constexpr const char* kFailureKey = "blt/failure";
constexpr const char* kAlarmKey = "blt/alarm";
constexpr const char* kDoing = "doing";
constexpr const char* kGone = "gone";

// What the store answers; none where it does not, in time. A store that hangs keeps the thread: the process is about to end then.
template <class Ask>
auto ask(const c10::intrusive_ptr<c10d::Store>& store, Ask question, milliseconds patience = kAnswerTime)
    -> std::optional<decltype(question(*store))> {
  using Answer = decltype(question(*store));
  const auto promise = std::make_shared<std::promise<Answer>>();
  std::future<Answer> answer = promise->get_future();
  std::thread([store, question, promise] {
    try {
      promise->set_value(question(*store));
    } catch (...) {
      promise->set_exception(std::current_exception());
    }
  }).detach();
  if (answer.wait_for(patience) != std::future_status::ready) return std::nullopt;
  try {
    return answer.get();
  } catch (const std::exception&) {  // the connection is lost
    return std::nullopt;
  }
}

std::vector<uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

std::optional<std::string> text_of(c10d::Store& store, const std::string& key) {
  if (!store.check({key})) return std::nullopt;
  const std::vector<uint8_t> bytes = store.get(key);
  return std::string(bytes.begin(), bytes.end());
}

std::string key(int64_t rank, const std::string& what) { return fmt::format("blt/rank/{}/{}", rank, what); }
// How many have said so: a rank that says it again counts twice.
std::string count_key(const std::string& what) { return fmt::format("blt/count/{}", what); }

std::vector<std::string> keys_of_ranks(int64_t first, int64_t last, const std::string& what) {
  std::vector<std::string> keys;
  for (int64_t r = first; r < last; ++r) keys.push_back(key(r, what));
  return keys;
}

// Appends the ranks from `first` to `last` - 1 that have no such key: few questions where few are missing.
void append_missing(c10d::Store& store, const std::string& what, int64_t first, int64_t last,
                    std::vector<int64_t>& missing) {
  if (first == last || store.check(keys_of_ranks(first, last, what))) return;
  if (last - first == 1) return missing.push_back(first);
  const int64_t middle = first + (last - first) / 2;
  append_missing(store, what, first, middle, missing);
  append_missing(store, what, middle, last, missing);
}

std::vector<int64_t> missing_of(c10d::Store& store, const std::string& what, int64_t ranks) {
  std::vector<int64_t> missing;
  append_missing(store, what, 0, ranks, missing);
  return missing;
}

}  // namespace

bool claim_failure(c10d::Store& store, const std::string& message) {
  const std::vector<uint8_t> own = bytes_of(message);
  return store.compareSet(kFailureKey, {}, own) == own;
}

RankStore::RankStore(c10::intrusive_ptr<c10d::Store> store, RankPlace place)
    : store_(std::move(store)), place_(std::move(place)) {}

RankStore::~RankStore() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  end_.notify_all();
  if (answering_.joinable()) answering_.join();
}

void RankStore::answer_with(std::function<std::string()> doing) {
  answering_ = std::thread([this, store = store_->clone(), doing = std::move(doing)] {
    try {
      answer(*store, doing);
    } catch (const std::exception&) {  // whoever kept the store has ended
    }
  });
}

void RankStore::answer(c10d::Store& store, const std::function<std::string()>& doing) {
  constexpr milliseconds kListenInterval(500);
  std::unique_lock lock(mutex_);
  while (!end_.wait_for(lock, kListenInterval, [this] { return ending_; })) {
    lock.unlock();
    if (store.check({kAlarmKey})) return store.set(key(place_.rank, kDoing), bytes_of(doing()));
    lock.lock();
  }
}

std::vector<std::optional<std::string>> RankStore::ask_all(milliseconds wait) {
  using Answers = std::vector<std::optional<std::string>>;
  constexpr milliseconds kInterval(100);  // a question names all ranks
  const auto end = Clock::now() + wait;
  while (true) {
    const bool last = Clock::now() >= end;
    const auto answers = ask(store_, [ranks = place_.ranks, last](c10d::Store& store) -> Answers {
      store.set(kAlarmKey, bytes_of("1"));
      if (!last && !store.check(keys_of_ranks(0, ranks, kDoing))) return {};
      const std::vector<int64_t> missing = missing_of(store, kDoing, ranks);
      Answers result(static_cast<size_t>(ranks));
      for (int64_t r = 0; r < ranks; ++r)
        if (!std::binary_search(missing.begin(), missing.end(), r))
          result[static_cast<size_t>(r)] = text_of(store, key(r, kDoing));
      return result;
    });
    if (!answers) return {};
    if (!answers->empty()) return *answers;
    std::this_thread::sleep_for(kInterval);
  }
}

void RankStore::announce(const std::string& what) {
  ask(store_, [own = key(place_.rank, what), count = count_key(what)](c10d::Store& store) {
    store.set(own, bytes_of("1"));
    return store.add(count, 1) > 0;
  });
}

std::optional<bool> RankStore::all_announced(const std::string& what, milliseconds patience) {
  const auto question = [what, ranks = place_.ranks](c10d::Store& store) {
    return store.add(count_key(what), 0) >= ranks && store.check(keys_of_ranks(0, ranks, what));
  };
  return ask(store_, question, std::max(patience, kAnswerTime));
}

std::optional<std::vector<int64_t>> RankStore::not_announced(const std::string& what) {
  return ask(store_,
             [what, ranks = place_.ranks](c10d::Store& store) { return missing_of(store, what, ranks); });
}

std::optional<std::string> RankStore::failure(milliseconds wait) {
  const auto end = Clock::now() + wait;
  while (true) {
    const auto told = ask(store_, [](c10d::Store& store) { return text_of(store, kFailureKey); });
    if (!told) return std::nullopt;
    if (*told || Clock::now() >= end) return *told;
    std::this_thread::sleep_for(kPollInterval);
  }
}

bool RankStore::claim_failure(const std::string& message) {
  // Two ranks may fail alike.
  const std::string own = fmt::format("rank {}: {}", place_.rank, message);
  const bool first =
      ask(store_, [own](c10d::Store& store) { return blt::claim_failure(store, own); }).value_or(true);
  announce(kGone);
  linger();
  return first;
}

void RankStore::linger() {
  if (!place_.keeps_store) return;
  constexpr milliseconds kLongest(5000);
  const auto end = Clock::now() + kLongest;
  while (Clock::now() < end) {
    if (all_announced(kGone).value_or(true)) return;
    std::this_thread::sleep_for(kPollInterval);
  }
}

std::string list_ranks(const std::vector<int64_t>& ranks) {
  return fmt::format("{}", fmt::join(ranks, ", "));
}

}  // namespace blt
