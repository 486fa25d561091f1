#include "train/step_profiler.h"

#include <ATen/Context.h>
#include <ATen/record_function.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "blt/base/error.h"

namespace blt {
namespace {

namespace fs = std::filesystem;
namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

constexpr std::string_view kStep = "step ";  // and its number: what Trainer::train_step() is in a trace

std::set<ActivityType> activities(at::Device device) {
  std::set<ActivityType> result = {ActivityType::CPU};
  if (device.is_cuda()) result.insert(ActivityType::CUDA);
  return result;
}

ProfilerConfig profiler_config(bool nvtx) {
  return ProfilerConfig(nvtx ? ProfilerState::NVTX : ProfilerState::KINETO);
}

using Times = std::map<std::string, RecordedTime>;

void add(Times& times, const std::string& name, double seconds) {
  RecordedTime& time = times[name];
  time.name = name;
  ++time.calls;
  time.seconds += seconds;
}

std::vector<RecordedTime> longest_first(Times times) {
  std::vector<RecordedTime> result;
  for (auto& [name, time] : times) result.push_back(std::move(time));
  std::stable_sort(result.begin(), result.end(),
                   [](const RecordedTime& a, const RecordedTime& b) { return a.seconds > b.seconds; });
  return result;
}

double seconds(uint64_t nanoseconds) { return static_cast<double>(nanoseconds) * 1e-9; }

bool is_range(const profiler::KinetoEvent& event) {
  return event.deviceType() == c10::DeviceType::CPU &&
         event.scope() == static_cast<uint8_t>(at::RecordScope::USER_SCOPE);
}

StepProfile summary(const std::vector<profiler::KinetoEvent>& events) {
  StepProfile profile;
  Times ranges, operators, kernels;
  std::map<uint64_t, std::vector<const profiler::KinetoEvent*>> of_threads;  // on the host
  std::vector<const profiler::KinetoEvent*> steps;
  std::set<std::string> range_names;
  for (const profiler::KinetoEvent& event : events) {
    if (!is_range(event)) continue;
    range_names.insert(event.name());
    if (!event.name().starts_with(kStep)) continue;
    steps.push_back(&event);
    profile.seconds += seconds(event.durationNs());
  }
  profile.steps = std::ssize(steps);
  for (const profiler::KinetoEvent& event : events) {
    if (event.deviceType() != c10::DeviceType::CPU) {
      // Kineto draws the host's ranges on the device too.
      if (range_names.count(event.name()) == 0) add(kernels, event.name(), seconds(event.durationNs()));
      continue;
    }
    // Not what a run does between steps: validations, logs.
    const bool is_inside = std::any_of(steps.begin(), steps.end(), [&](const auto* step) {
      return step != &event && step->startNs() <= event.startNs() && event.endNs() <= step->endNs();
    });
    if (!is_inside) continue;
    of_threads[event.startThreadId()].push_back(&event);
    if (is_range(event)) add(ranges, event.name(), seconds(event.durationNs()));
  }
  for (auto& [thread, started] : of_threads) {
    std::stable_sort(started.begin(), started.end(), [](const auto* a, const auto* b) {
      return std::pair(a->startNs(), b->endNs()) < std::pair(b->startNs(), a->endNs());
    });
    // Those that are inside each other at a time, and what each spends in those that it calls.
    std::vector<std::pair<const profiler::KinetoEvent*, uint64_t>> open;
    const auto close = [&] {
      const auto [event, inside] = open.back();
      open.pop_back();
      const uint64_t took = event->durationNs();
      if (!is_range(*event)) add(operators, event->name(), seconds(took - std::min(took, inside)));
      if (!open.empty()) open.back().second += took;
    };
    for (const auto* event : started) {
      while (!open.empty() && open.back().first->endNs() <= event->startNs()) close();
      open.emplace_back(event, 0);
    }
    while (!open.empty()) close();
  }
  profile.ranges = longest_first(std::move(ranges));
  profile.operators = longest_first(std::move(operators));
  profile.kernels = longest_first(std::move(kernels));
  return profile;
}

void add_rows(std::string& text, std::string_view title, const std::vector<RecordedTime>& times,
              const StepProfile& profile) {
  constexpr size_t kShown = 25;
  constexpr size_t kWidth = 64;
  text += fmt::format("{:<{}} {:>7} {:>12} {:>9}\n", title, kWidth, "share", "ms a step", "a step");
  const auto steps = static_cast<double>(profile.steps);
  const auto row = [&](const std::string& name, double took, double calls) {
    text += fmt::format("  {:<{}} {:>6.1f}% {:>12.3f} {:>9.1f}\n", name.substr(0, kWidth - 2), kWidth - 2,
                        100 * took / profile.seconds, 1e3 * took / steps, calls / steps);
  };
  const size_t shown = std::min(kShown, times.size());
  for (size_t i = 0; i < shown; ++i)
    row(times[i].name, times[i].seconds, static_cast<double>(times[i].calls));
  RecordedTime rest;
  for (size_t i = shown; i < times.size(); ++i) {
    rest.calls += times[i].calls;
    rest.seconds += times[i].seconds;
  }
  if (rest.calls > 0)
    row(fmt::format("{} more", times.size() - shown), rest.seconds, static_cast<double>(rest.calls));
}

}  // namespace

std::string to_table(const StepProfile& profile) {
  std::string text = fmt::format("{} steps of {:.3f} ms each\n", profile.steps,
                                 1e3 * profile.seconds / static_cast<double>(profile.steps));
  add_rows(text, "parts of the step, modules forward", profile.ranges, profile);
  add_rows(text, "operators, without those that they call", profile.operators, profile);
  if (!profile.kernels.empty()) add_rows(text, "on the device", profile.kernels, profile);
  return text;
}

StepProfiler::StepProfiler(ProfileConfig config, fs::path trace, at::Device device)
    : config_(config), trace_(std::move(trace)), device_(device), is_done_(config.steps == 0) {
  if (is_done_) return;
  if (config_.nvtx && !at::hasCUDA())
    throw Error("--nvtx: no CUDA device is to be seen; leave it out to get a trace");
}

StepProfiler::~StepProfiler() {
  if (!is_recording_) return;
  try {
    profiler::disableProfiler();
  } catch (const std::exception&) {
    // There is nothing to lose.
  }
}

void StepProfiler::start() {
  const ProfilerConfig config = profiler_config(config_.nvtx);
  // FUNCTION: operators; BACKWARD_FUNCTION: nodes of the graph, which call them; USER_SCOPE: ranges.
  const std::unordered_set<at::RecordScope> scopes = {
      at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION, at::RecordScope::USER_SCOPE};
  if (!config_.nvtx) profiler::prepareProfiler(config, activities(device_));
  profiler::enableProfiler(config, activities(device_), scopes);
  is_recording_ = true;
}

void StepProfiler::before_step() {
  if (!is_done_ && !is_recording_ && seen_ >= kWarmUp) start();
}

std::optional<StepProfile> StepProfiler::after_step(bool last) {
  ++seen_;
  if (!is_recording_ || (!last && seen_ < kWarmUp + config_.steps)) return std::nullopt;
  const std::unique_ptr<profiler::ProfilerResult> result = profiler::disableProfiler();
  is_recording_ = false;
  is_done_ = true;
  if (config_.nvtx) return std::nullopt;
  if (!trace_.empty()) {
    // LibTorch says nothing when it cannot write.
    std::error_code ignored;
    fs::remove(trace_, ignored);
    result->save(trace_.string());
    if (!fs::exists(trace_)) throw Error(fmt::format("{}: the trace cannot be written", trace_.string()));
  }
  return summary(result->events());
}

}  // namespace blt
