// Where the time of a training step goes, from LibTorch's profiler.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "blt/train/trainer.h"

namespace blt {

// One thing that was recorded, under a name that it has in the trace.
struct RecordedTime {
  std::string name = {};
  int64_t calls = 0;
  double seconds = 0;
};

// What was recorded of some steps, the longest first.
struct StepProfile {
  int64_t steps = 0;
  double seconds = 0;  // that the steps took, on the host
  std::vector<RecordedTime> ranges =
      {};  // parts of the step, and modules in their forward: with all that they call
  std::vector<RecordedTime> operators = {};  // on the host, without what they call
  std::vector<RecordedTime> kernels = {};    // on the device; empty on the CPU
};
std::string to_table(const StepProfile& profile);

// Records steps, after a few that warm up, with LibTorch's profiler (Kineto): operators and ranges (model/trace_range.h) of the training's
// thread and of the backward's, and a device's kernels. The trace is JSON for chrome://tracing and ui.perfetto.dev. With config.nvtx they become
// NVTX ranges instead, which only NVIDIA's tools see. Not thread-safe; one profiler at a time in a process.
class StepProfiler {
 public:
  static constexpr int64_t kWarmUp = 3;  // steps

  // trace: the file; empty: none. Throws blt::Error where this LibTorch cannot do what the config asks.
  StepProfiler(ProfileConfig config, std::filesystem::path trace, at::Device device);
  ~StepProfiler();  // what is being recorded is dropped
  StepProfiler(const StepProfiler&) = delete;
  StepProfiler& operator=(const StepProfiler&) = delete;

  void before_step();
  // What was recorded, once, after the last step to record; the trace is there then. last: no step follows. Throws blt::Error when
  // the trace cannot be written.
  std::optional<StepProfile> after_step(bool last);

 private:
  void start();

  ProfileConfig config_;
  std::filesystem::path trace_;
  at::Device device_;
  int64_t seen_ = 0;  // steps
  bool is_recording_ = false, is_done_ = false;
};

}  // namespace blt
