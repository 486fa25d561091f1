// Calls that may hang: a connection stays open where its other end was frozen, and nobody answers.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

namespace blt {

inline std::chrono::milliseconds to_milliseconds(double seconds) {
  return std::chrono::milliseconds(std::llround(seconds * 1000));
}

// Calls `call` on a thread of its own. A call that hangs keeps the thread, and all that it holds, until the process ends.
template <class Call>
auto aside(Call call) -> std::future<decltype(call())> {
  using Result = decltype(call());
  const auto promise = std::make_shared<std::promise<Result>>();
  std::future<Result> result = promise->get_future();
  std::thread([call = std::move(call), promise]() mutable {
    try {
      promise->set_value(call());
    } catch (...) {
      promise->set_exception(std::current_exception());
    }
  }).detach();
  return result;
}

// Waits so long at most. Time in which this process was stopped (SIGSTOP, Ctrl-Z) counts as a moment.
template <class Result>
bool is_there(const std::future<Result>& result, std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds kMoment(100);
  for (auto left = patience;; left -= kMoment) {
    const auto wait = std::clamp(left, std::chrono::milliseconds(0), kMoment);
    if (result.wait_for(wait) == std::future_status::ready) return true;
    if (left <= kMoment) return false;
  }
}

// What `call` gives, or throws; none where it takes longer.
template <class Call>
auto in_time(Call call, std::chrono::milliseconds patience) -> std::optional<decltype(call())> {
  auto result = aside(std::move(call));
  if (!is_there(result, patience)) return std::nullopt;
  return result.get();
}

}  // namespace blt
