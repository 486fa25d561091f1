#include "train/rank_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <thread>
#include <utility>

#include "train/in_time.h"

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
constexpr const char* kSpareKey = "blt/spare";

std::vector<uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

// Of a key that is there.
std::string text_in(c10d::Store& store, const std::string& key) {
  const std::vector<uint8_t> bytes = store.get(key);
  return {bytes.begin(), bytes.end()};
}

std::optional<std::string> text_of(c10d::Store& store, const std::string& key) {
  if (!store.check({key})) return std::nullopt;
  return text_in(store, key);
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

std::string describe(Loss loss, const RankPlace& place) {
  return fmt::format("{}, which keeps the store at {}:{}, {}",
                     place.launcher_keeps_store ? "the launcher" : "rank 0", place.host, place.port,
                     loss == Loss::kClosed ? "is gone: look at what it said last"
                                           : "does not answer: it hangs, or its machine cannot be reached");
}

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
  if (listening_.joinable()) listening_.join();
}

template <class Question>
auto RankStore::ask(Question question, milliseconds patience) const
    -> std::optional<decltype(question(std::declval<c10d::Store&>()))> {
  {
    const std::lock_guard lock(line_->mutex);
    const auto now = Clock::now();
    if (line_->unanswered == 0) line_->silent_since = now;
    const auto silence = now - line_->silent_since;  // one question is answered after the other
    if (line_->is_closed || silence >= patience) return std::nullopt;
    patience -= std::chrono::duration_cast<milliseconds>(silence);
    ++line_->unanswered;
  }
  const auto counted = [line = line_, store = store_, question] {
    try {
      auto answer = question(*store);
      const std::lock_guard lock(line->mutex);
      --line->unanswered;
      line->silent_since = Clock::now();
      return answer;
    } catch (const std::exception&) {  // the connection is lost
      const std::lock_guard lock(line->mutex);
      line->is_closed = true;
      throw;
    }
  };
  try {
    return in_time(counted, patience);
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

void RankStore::open_spare() {
  if (place_.ranks == 1 || place_.rank != place_.ranks - 1) return;
  spare_ = std::make_unique<SpareStore>(place_);
  ask(
      [address = spare_->address()](c10d::Store& store) {
        store.set(kSpareKey, bytes_of(address));
        return true;
      },
      kAnswerTime);
}

void RankStore::find_spare() {
  if (place_.ranks == 1 || spare_) return;
  const auto address = ask([](c10d::Store& store) { return text_of(store, kSpareKey); }, kAnswerTime);
  if (address && *address) spare_ = std::make_unique<SpareStore>(place_, **address);
}

void RankStore::listen(Listening to, c10::intrusive_ptr<c10d::Store> connection) {
  listening_ =
      std::thread([this, to = std::move(to), connection = std::move(connection)] { hear(to, connection); });
}

bool RankStore::ends_within(milliseconds time) {
  std::unique_lock lock(mutex_);
  return end_.wait_for(lock, time, [this] { return ending_; });
}

void RankStore::hear(const Listening& to, const c10::intrusive_ptr<c10d::Store>& store) {
  constexpr milliseconds kInterval(500);
  bool is_lost = false;
  const auto lose = [&] {
    if (!std::exchange(is_lost, true)) to.on_lost();
  };
  // False: this rank ends before.
  const auto is_answered = [&](const auto& answer) {
    for (milliseconds silence(0); !is_there(answer, kInterval); silence += kInterval) {
      if (ends_within(milliseconds(0))) return false;
      if (silence >= to.patience) lose();
    }
    return true;
  };
  try {
    for (bool alarm = false; !alarm;) {
      if (ends_within(kInterval)) return;
      auto answer = aside([store] { return store->check({kAlarmKey}); });
      if (!is_answered(answer)) return;
      alarm = answer.get();
    }
    const auto said = aside([store, own = key(place_.rank, kDoing), doing = bytes_of(to.doing())] {
      store->set(own, doing);
      return true;
    });
    is_answered(said);
  } catch (const std::exception&) {  // whoever kept the store has ended
    if (ends_within(milliseconds(0))) return;
    {
      const std::lock_guard lock(line_->mutex);
      line_->is_closed = true;
    }
    lose();
  }
}

std::vector<std::optional<std::string>> RankStore::ask_all(milliseconds wait) {
  using Answers = std::vector<std::optional<std::string>>;
  constexpr milliseconds kInterval(100);  // a question names all ranks
  const auto end = Clock::now() + wait;
  while (true) {
    const bool last = Clock::now() >= end;
    const auto question = [ranks = place_.ranks, last](c10d::Store& store) -> Answers {
      store.set(kAlarmKey, bytes_of("1"));
      std::vector<int64_t> missing;
      if (!store.check(keys_of_ranks(0, ranks, kDoing))) {
        if (!last) return {};
        missing = missing_of(store, kDoing, ranks);
      }
      Answers result(static_cast<size_t>(ranks));
      for (int64_t r = 0; r < ranks; ++r)
        if (!std::binary_search(missing.begin(), missing.end(), r))
          result[static_cast<size_t>(r)] = text_in(store, key(r, kDoing));
      return result;
    };
    const auto answers = ask(question, kAnswerTime);
    if (!answers) return {};
    if (!answers->empty()) return *answers;
    std::this_thread::sleep_for(kInterval);
  }
}

void RankStore::announce(const std::string& what) {
  ask(
      [own = key(place_.rank, what), count = count_key(what)](c10d::Store& store) {
        store.set(own, bytes_of("1"));
        return store.add(count, 1) > 0;
      },
      kAnswerTime);
}

std::optional<bool> RankStore::all_announced(const std::string& what, milliseconds patience) {
  const auto question = [what, ranks = place_.ranks](c10d::Store& store) {
    return store.add(count_key(what), 0) >= ranks && store.check(keys_of_ranks(0, ranks, what));
  };
  return ask(question, std::max(patience, kAnswerTime));
}

std::optional<std::vector<int64_t>> RankStore::not_announced(const std::string& what) {
  return ask([what, ranks = place_.ranks](c10d::Store& store) { return missing_of(store, what, ranks); },
             kAnswerTime);
}

std::optional<std::string> RankStore::failure(milliseconds wait) {
  const auto end = Clock::now() + wait;
  while (true) {
    const auto told = ask([](c10d::Store& store) { return text_of(store, kFailureKey); }, kAnswerTime);
    if (!told) return std::nullopt;
    if (*told || Clock::now() >= end) return *told;
    std::this_thread::sleep_for(kPollInterval);
  }
}

bool RankStore::claim_failure(const std::string& message) {
  // Two ranks may fail alike.
  const std::string own = fmt::format("rank {}: {}", place_.rank, message);
  const auto is_first =
      ask([own](c10d::Store& store) { return blt::claim_failure(store, own); }, kAnswerTime);
  if (is_first) {
    announce(kGone);
    linger();
    return *is_first;
  }
  if (!spare_) return true;
  const bool speaks = spare_->claim("failure");
  spare_->linger();
  return speaks;
}

bool RankStore::claim_loss() { return !spare_ || spare_->claim("loss"); }

std::string RankStore::loss() const {
  const std::lock_guard lock(line_->mutex);
  return describe(line_->is_closed ? Loss::kClosed : Loss::kSilent, place_);
}

void RankStore::linger() {
  if (!place_.keeps_store()) return;
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
