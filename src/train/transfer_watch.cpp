#include "train/transfer_watch.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "train/first_line.h"

namespace blt {

TransferWatch::~TransferWatch() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  end_.notify_all();
  if (looking_.joinable()) looking_.join();
  if (timing_.joinable()) timing_.join();
}

void TransferWatch::begin(const Transfer& transfer, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  under_way_[transfer.number] = {.transfer = transfer, .since = now};
}

void TransferWatch::forget(int64_t number) {
  const std::lock_guard lock(mutex_);
  under_way_.erase(number);
}

void TransferWatch::watch(const Transfer& transfer, std::function<bool()> is_done, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  under_way_[transfer.number] = {.transfer = transfer, .since = now, .is_done = std::move(is_done)};
}

void TransferWatch::look(Clock::time_point now) {
  std::map<int64_t, UnderWay> waited_for;  // asked without the lock: an answer may not come
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [number, one] : under_way_)
      if (one.is_done) waited_for.emplace(number, one);
  }
  for (const auto& [number, one] : waited_for) {
    std::optional<Trouble> failed;
    try {
      if (!one.is_done()) continue;
    } catch (const std::exception& e) {
      failed = {.transfer = one.transfer, .reason = first_line(e)};
    }
    const std::lock_guard lock(mutex_);
    if (failed && !failed_) failed_ = std::move(failed);
    under_way_.erase(number);
    last_done_ = now;
  }
}

std::optional<TransferWatch::Trouble> TransferWatch::trouble(Clock::time_point now) const {
  const std::lock_guard lock(mutex_);
  if (failed_ || under_way_.empty()) return failed_;
  const UnderWay& oldest = under_way_.begin()->second;
  if (now - std::max(oldest.since, last_done_) < limit_) return std::nullopt;
  return Trouble{
      .transfer = oldest.transfer,
      .reason = oldest.is_done ? "the device waits for it" : "the call that begins it does not return"};
}

void TransferWatch::start(std::function<void(const Trouble&)> end_run) {
  looking_ = std::thread([this] {
    while (!ends_within_a_moment()) look();
  });
  timing_ = std::thread([this, end_run = std::move(end_run)] {
    while (!ends_within_a_moment())
      if (const auto found = trouble()) return end_run(*found);
  });
}

bool TransferWatch::ends_within_a_moment() {
  constexpr std::chrono::milliseconds kMoment(200);
  std::unique_lock lock(mutex_);
  return end_.wait_for(lock, kMoment, [this] { return ending_; });
}

}  // namespace blt
