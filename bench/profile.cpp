#include "bench/profile.h"

#include <ATen/record_function.h>

#include <algorithm>
#include <map>
#include <memory>

#include "bench/timing.h"

namespace blt::bench {
namespace {

// Callbacks are plain functions.
std::map<std::string, OperatorTime> times;
thread_local std::vector<double>
    inner_seconds;  // of each operator that is running: what those it called took

struct Started : at::ObserverContext {
  double at = thread_seconds();
};

std::unique_ptr<at::ObserverContext> start(const at::RecordFunction&) {
  inner_seconds.push_back(0);
  return std::make_unique<Started>();
}

void end(const at::RecordFunction& function, at::ObserverContext* context) {
  const double took = thread_seconds() - static_cast<Started*>(context)->at;
  OperatorTime& time = times[function.name()];
  ++time.calls;
  time.seconds += took - inner_seconds.back();
  inner_seconds.pop_back();
  if (!inner_seconds.empty()) inner_seconds.back() += took;
}

}  // namespace

std::vector<OperatorTime> profile(const std::function<void()>& run) {
  times.clear();
  inner_seconds = {0};
  const at::CallbackHandle handle =
      at::addGlobalCallback(at::RecordFunctionCallback(start, end)
                                .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION}));
  const double before = thread_seconds();
  run();
  const double all = thread_seconds() - before;
  at::removeCallback(handle);
  std::vector<OperatorTime> result{{"the rest", 1, all - inner_seconds.back()}};
  for (auto& [name, time] : times) {
    time.name = name;
    result.push_back(time);
  }
  std::sort(result.begin(), result.end(), [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  return result;
}

}  // namespace blt::bench
