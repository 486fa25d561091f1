#include "train/progress.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numbers>

#include "blt/base/error.h"

namespace blt {
namespace {

std::string rate(double bytes_per_s) {
  if (bytes_per_s >= 1e6) return fmt::format("{:.2f} MB/s", bytes_per_s / 1e6);
  return fmt::format("{:.1f} kB/s", bytes_per_s / 1e3);
}

std::string duration(double seconds) {
  const auto whole = std::chrono::seconds(static_cast<int64_t>(std::lround(seconds)));
  return whole < std::chrono::hours(1) ? fmt::format("{:%M:%S}", whole) : fmt::format("{:%H:%M:%S}", whole);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Progress::Progress(const TrainConfig& config, const std::filesystem::path& output)
    : config_(config),
      terminal_(isatty(STDERR_FILENO) != 0),
      started_(Clock::now()),
      interval_started_(started_) {
  if (output.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(output, error);
  metrics_.open(output / "metrics.jsonl", std::ios::app);
  if (!metrics_) throw Error(fmt::format("{}: cannot be written", (output / "metrics.jsonl").string()));
}

Progress::~Progress() { finish_line(); }

void Progress::count(const StepStats& stats) {
  ++interval_steps_;
  interval_bytes_ += stats.bytes;
  if (stats.byte_nll.defined())
    interval_nll_ = interval_nll_.defined() ? interval_nll_ + stats.byte_nll : stats.byte_nll;
}

void Progress::log_step(int64_t step, const StepStats& stats) {
  const double loss = stats.loss.item<double>();
  const double norm = stats.clip.norm.item<double>();
  const double bits = interval_nll_.defined() ? interval_nll_.item<double>() /
                                                    (static_cast<double>(interval_bytes_) * std::numbers::ln2)
                                              : std::nan("");
  const double speed = static_cast<double>(interval_bytes_) / seconds_since(interval_started_);
  const double learning_rate =
      config_.optimizer.learning_rate * learning_rate_factor(config_.schedule, step - 1, config_.steps);
  const double left_s = (seconds_since(started_) - validation_s_) / static_cast<double>(step) *
                        static_cast<double>(config_.steps - step);
  std::string line = fmt::format("step {:>{}}/{}  loss {:.4f}", step,
                                 fmt::formatted_size("{}", config_.steps), config_.steps, loss);
  if (!std::isnan(bits)) line += fmt::format("  bits/byte {:.3f}", bits);
  show(line + fmt::format("  {}  lr {:.2e}  norm {:.2f}  left {}", rate(speed), learning_rate, norm,
                          duration(left_s)));
  if (metrics_) {
    nlohmann::ordered_json row = {{"step", step}, {"loss", loss}};
    if (!std::isnan(bits)) row["bits_per_byte"] = bits;
    row.update({{"bytes_per_s", speed}, {"learning_rate", learning_rate}, {"gradient_norm", norm}});
    metrics_ << row.dump() << std::endl;
  }
  interval_bytes_ = interval_steps_ = 0;
  interval_nll_ = at::Tensor();
  interval_started_ = Clock::now();
}

void Progress::log_validation(int64_t step, double bits_per_byte) {
  validation_s_ += seconds_since(interval_started_);
  interval_started_ = Clock::now();
  if (std::isnan(bits_per_byte)) return;
  finish_line();
  fmt::print(stderr, "step {}: held-out bits/byte {:.4f}\n", step, bits_per_byte);
  if (metrics_)
    metrics_ << nlohmann::ordered_json{{"step", step}, {"valid_bits_per_byte", bits_per_byte}}.dump()
             << std::endl;
}

void Progress::show(const std::string& line) {
  if (terminal_) {
    fmt::print(stderr, "\r{}\x1b[K", line);  // \x1b[K clears what a longer line left behind
    line_open_ = true;
  } else {
    fmt::print(stderr, "{}\n", line);
  }
  std::fflush(stderr);
}

void Progress::finish_line() {
  if (line_open_) fmt::print(stderr, "\n");
  line_open_ = false;
}

}  // namespace blt
