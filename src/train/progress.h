// What a training run shows while it runs: a line on stderr, and a line of JSON in metrics.jsonl.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "blt/train/trainer.h"

namespace blt {

// On a terminal one line is rewritten in place; in a file or a pipe every log step is a line of its own. Not
// thread-safe.
class Progress {
 public:
  Progress(const TrainConfig& config, const std::filesystem::path& output);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void count(const StepStats& stats);                       // after every step
  void log_step(int64_t step, const StepStats& stats);      // looks at the device
  void log_validation(int64_t step, double bits_per_byte);  // NaN: there was nothing to validate on

 private:
  using Clock = std::chrono::steady_clock;
  void show(const std::string& line);
  void finish_line();

  const TrainConfig& config_;
  bool terminal_;
  bool line_open_ = false;
  std::ofstream metrics_;
  Clock::time_point started_, interval_started_;
  int64_t interval_bytes_ = 0, interval_steps_ = 0;
  at::Tensor interval_nll_;    // [] nats over the interval's bytes
  double validation_s_ = 0.0;  // spent outside of steps since the run started
};

}  // namespace blt
