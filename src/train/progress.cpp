#include "train/progress.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <numbers>

#include "base/terminal.h"
#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/base/log.h"

namespace blt {
namespace {

namespace fs = std::filesystem;

// A terminal on which a line can be rewritten.
bool is_terminal() {
  const char* kind = std::getenv("TERM");
  return isatty(STDERR_FILENO) != 0 && kind != nullptr && std::string_view(kind) != "dumb";
}

// Rows about steps after `step` were written by a run that was killed before it saved them; so was a row without an end.
void rewind_metrics(const fs::path& path, int64_t step) {
  if (!fs::exists(path)) return;
  const std::string text = read_file(path);
  std::string kept;
  for (size_t start = 0, end = 0; (end = text.find('\n', start)) != text.npos; start = end + 1) {
    const std::string line = text.substr(start, end - start);
    const auto row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (row.is_object() && row.contains("step") && row["step"].is_number_integer() && row["step"] <= step)
      kept += line + "\n";
  }
  if (kept != text) write_file(path, kept);
}

std::string flops(double flops_per_s) {
  if (flops_per_s >= 1e12) return fmt::format("{:.2f} TFLOP/s", flops_per_s / 1e12);
  return fmt::format("{:.1f} GFLOP/s", flops_per_s / 1e9);
}

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

Progress::Progress(const TrainConfig& config, const TrainerParts& parts, int64_t first_step, bool is_silent)
    : config_(config),
      data_metrics_(parts.metrics),
      flops_per_byte_(parts.flops_per_byte),
      has_others_(parts.group && parts.group->size() > 1),
      first_step_(first_step),
      is_silent_(is_silent),
      terminal_(is_terminal()),
      started_(Clock::now()),
      interval_started_(started_) {
  if (is_silent || parts.output.empty()) return;
  std::error_code error;
  fs::create_directories(parts.output, error);
  if (error)
    throw Error(fmt::format("{}: cannot make this folder: {}", parts.output.string(), error.message()));
  metrics_path_ = parts.output / "metrics.jsonl";
  rewind_metrics(metrics_path_, first_step);
  metrics_.emplace(metrics_path_);
  events_.emplace(parts.output, first_step);
}

Progress::~Progress() { finish_line(); }

void Progress::count(const StepStats& stats) {
  if (is_silent_) return;
  interval_transfer_wait_s_ += stats.transfer_wait_s;
  interval_targets_ += stats.targets;
  interval_bytes_ += stats.bytes;
  const at::Tensor loss = stats.loss * stats.targets;
  interval_loss_ = interval_loss_.defined() ? interval_loss_ + loss : loss;
  if (stats.byte_nll.defined())
    interval_nll_ = interval_nll_.defined() ? interval_nll_ + stats.byte_nll : stats.byte_nll;
}

void Progress::log_step(int64_t step, const StepStats& stats, int64_t skipped, int64_t failed_saves) {
  if (is_silent_) return;
  const double loss =  // of an interval in which no step was finite: what made the last one not so
      interval_loss_.defined() ? interval_loss_.item<double>() / static_cast<double>(interval_targets_)
                               : stats.loss.item<double>();
  const double norm = stats.clip.norm.item<double>();
  const double bits = interval_nll_.defined() ? interval_nll_.item<double>() /
                                                    (static_cast<double>(interval_bytes_) * std::numbers::ln2)
                                              : std::nan("");
  const double seconds = seconds_since(interval_started_);
  const double speed = static_cast<double>(interval_bytes_) / seconds;
  const double communication_share = interval_transfer_wait_s_ / seconds;
  const double learning_rate =
      config_.optimizer.learning_rate * learning_rate_factor(config_.schedule, step - 1, config_.steps);
  const double left_s = (seconds_since(started_) - validation_s_) / static_cast<double>(step - first_step_) *
                        static_cast<double>(config_.steps - step);
  std::vector<std::string> parts = {
      fmt::format("step {:>{}}/{}", step, fmt::formatted_size("{}", config_.steps), config_.steps),
      fmt::format("loss {:.4f}", loss)};
  if (!std::isnan(bits)) parts.push_back(fmt::format("bits/byte {:.3f}", bits));
  parts.push_back("left " + duration(left_s));
  parts.push_back(rate(speed));
  if (flops_per_byte_ > 0) parts.push_back(flops(speed * flops_per_byte_));
  parts.push_back(fmt::format("lr {:.2e}", learning_rate));
  parts.push_back(fmt::format("norm {:.2f}", norm));
  if (has_others_) parts.push_back(fmt::format("communication {:.1f}%", 100 * communication_share));
  if (skipped > 0) parts.push_back(fmt::format("skipped {}", skipped));
  show(parts);
  if (metrics_) {
    nlohmann::ordered_json row = {{"step", step}, {"loss", loss}};
    if (!std::isnan(bits)) row["bits_per_byte"] = bits;
    row.update({{"bytes_per_s", speed}, {"learning_rate", learning_rate}, {"gradient_norm", norm}});
    if (flops_per_byte_ > 0) row["flops_per_s"] = speed * flops_per_byte_;
    row["skipped_steps"] = skipped;
    row["failed_saves"] = failed_saves;
    if (has_others_)
      row.update({{"communication_wait_s", interval_transfer_wait_s_},
                  {"communication_share", communication_share}});
    if (data_metrics_)
      for (const auto& [name, value] : data_metrics_()) row["data." + name] = value;
    write_metrics(row.dump());
    std::vector<EventFile::Scalar> scalars;
    for (const auto& [name, value] : row.items())
      if (name != "step" && value.is_number()) scalars.push_back({"train/" + name, value.get<double>()});
    write_events(step, scalars);
  }
  interval_targets_ = interval_bytes_ = 0;
  interval_transfer_wait_s_ = 0;
  interval_loss_ = interval_nll_ = at::Tensor();
  interval_started_ = Clock::now();
}

void Progress::log_validation(int64_t step, double bits_per_byte) {
  validation_s_ += seconds_since(interval_started_);
  interval_started_ = Clock::now();
  if (is_silent_ || std::isnan(bits_per_byte)) return;
  finish_line();
  fmt::print(stderr, "step {}: held-out bits/byte {:.4f}\n", step, bits_per_byte);
  if (!metrics_) return;
  write_metrics(nlohmann::ordered_json{{"step", step}, {"valid_bits_per_byte", bits_per_byte}}.dump());
  write_events(step, {{"valid/bits_per_byte", bits_per_byte}});
}

void Progress::log_save(int64_t step, const SaveTimes& times) {
  if (!metrics_) return;
  write_metrics(nlohmann::ordered_json{{"step", step},
                                       {"checkpoint_stop_s", times.stop_s},
                                       {"checkpoint_wait_s", times.wait_s},
                                       {"checkpoint_copy_s", times.copy_s}}
                    .dump());
}

void Progress::write_metrics(const std::string& row) {
  unwritten_ += row + "\n";
  try {
    metrics_->append(unwritten_);
    unwritten_.clear();
  } catch (const Error& problem) {
    warn_once(problem);
  }
}

void Progress::write_events(int64_t step, const std::vector<EventFile::Scalar>& scalars) {
  try {
    events_->write(step, scalars);
  } catch (const Error& problem) {
    warn_once(problem);
  }
}

// The rest of the disk's story is told by the checkpoints.
void Progress::warn_once(const Error& problem) {
  if (std::exchange(has_warned_, true)) return;
  finish_line();
  log_warning(fmt::format("{}; the training goes on, and rows of metrics wait in memory", problem.what()));
}

void Progress::show(const std::vector<std::string>& parts) {
  // A line that reaches the last column would wrap and could not be rewritten.
  const size_t room = terminal_ ? terminal_columns(STDERR_FILENO).value_or(80) - 1 : std::string::npos;
  std::string line;
  for (const std::string& part : parts) {
    const std::string more = (line.empty() ? "" : "  ") + part;
    if (line.size() + more.size() > room) break;
    line += more;
  }
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
