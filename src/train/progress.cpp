#include "train/progress.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numbers>
#include <system_error>

#include "base/seconds_since.h"
#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/base/log.h"
#include "blt/base/memory.h"
#include "blt/base/terminal.h"
#include "blt/io/event_file.h"

namespace blt {
namespace {

namespace fs = std::filesystem;

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

// Of a tensor [n] float64; none of one that is not there.
std::vector<double> numbers(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  const at::Tensor here = tensor.cpu().contiguous();
  return {here.const_data_ptr<double>(), here.const_data_ptr<double>() + here.numel()};
}

std::string mebibytes(int64_t bytes) {
  return fmt::format("{:.0f} MiB", static_cast<double>(bytes) / (1 << 20));
}

int64_t ranks_of(const TrainerParts& parts) { return parts.group ? parts.group->size() : 1; }

// The bytes of tensors on the device that a model is on, now and the most so far; none on the CPU.
std::optional<ProcessMemory> device_memory(const torch::nn::Module& module) {
  const std::vector<at::Tensor> parameters = module.parameters();
  if (parameters.empty() || parameters[0].is_cpu()) return std::nullopt;
  const at::Device device = parameters[0].device();
  const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  const auto& all =
      stats.allocated_bytes[static_cast<size_t>(c10::CachingDeviceAllocator::StatType::AGGREGATE)];
  return ProcessMemory{.resident = all.current, .peak = all.peak};
}

// The most that a rank has of something, of what own_figures() gave; none where no rank has it.
class Most {
 public:
  explicit Most(const std::vector<std::string>& figures) {
    for (const std::string& of_rank : figures) {
      const auto own = nlohmann::json::parse(of_rank);
      for (const auto& [name, value] : own.items()) {
        const auto there = most_.try_emplace(name, value.get<double>()).first;
        there->second = std::max(there->second, value.get<double>());
      }
    }
  }
  std::optional<double> of(const std::string& name) const {
    const auto found = most_.find(name);
    if (found == most_.end()) return std::nullopt;
    return found->second;
  }

 private:
  std::map<std::string, double> most_;
};

// A disk that hangs stops a run for so long, once: then it is looked at, and not waited for.
constexpr std::chrono::milliseconds kPatience(1000);

// metrics.jsonl, and the event file beside it.
class RowsOnDisk {
 public:
  RowsOnDisk(const fs::path& metrics, int64_t first_step)
      : files_(std::make_shared<Files>(metrics, first_step)) {}

  void operator()(Rows& rows) const {
    if (!rows.lines.empty()) {
      // Who removed it, with the folder perhaps, and made that anew, wants to see what follows.
      std::error_code ignored;
      if (!fs::exists(files_->path, ignored)) files_->metrics.emplace(files_->path);
      files_->metrics->append(rows.lines);
      rows.lines.clear();
    }
    for (const auto& [step, scalars] : std::exchange(rows.events, {})) files_->events.write(step, scalars);
  }

 private:
  struct Files {
    Files(const fs::path& file, int64_t first_step)
        : path(file), metrics(std::in_place, file), events(file.parent_path(), first_step) {}
    fs::path path;
    std::optional<AppendFile> metrics;
    EventFile events;
  };
  std::shared_ptr<Files> files_;
};

}  // namespace

Progress::Progress(const TrainConfig& config, const TrainerParts& parts,
                   const std::vector<std::string>& modules, int64_t first_step, bool is_silent)
    : config_(config),
      parts_(parts),
      modules_(modules),
      peak_flops_(config.peak_tflops.value_or(0) * 1e12 * static_cast<double>(ranks_of(parts))),
      first_step_(first_step),
      is_silent_(is_silent),
      terminal_(takes_escapes(STDERR_FILENO)),
      started_(Clock::now()),
      interval_started_(started_) {
  if (is_silent || parts.output.empty()) return;
  std::error_code error;
  fs::create_directories(parts.output, error);
  if (error)
    throw Error(fmt::format("{}: cannot make this folder: {}", parts.output.string(), error.message()));
  metrics_path_ = parts.output / "metrics.jsonl";
  rewind_metrics(metrics_path_, first_step);
  rows_.emplace(metrics_path_.string(), RowsOnDisk(metrics_path_, first_step), kPatience);
}

Progress::~Progress() { finish_line(); }

void Progress::count(const StepStats& stats, bool taken) {
  if (is_silent_) return;
  interval_transfer_wait_s_ += stats.transfer_waits.seconds();  // the device has come past the step
  interval_entropy_flops_ += stats.entropy_flops;
  if (!taken) return;
  interval_targets_ += stats.targets;
  interval_text_ += stats.text;
  bytes_ += stats.text.bytes;
  const at::Tensor loss = stats.loss * stats.targets;
  interval_loss_ = interval_loss_.defined() ? interval_loss_ + loss : loss;
  if (stats.byte_nll.defined())
    interval_nll_ = interval_nll_.defined() ? interval_nll_ + stats.byte_nll : stats.byte_nll;
}

std::string Progress::own_figures() {
  interval_data_ = parts_.metrics ? parts_.metrics() : std::vector<std::pair<std::string, double>>();
  const ProcessMemory memory = process_memory();
  nlohmann::json figures = {{"memory", memory.resident}, {"peak_memory", memory.peak}};
  if (const auto device = device_memory(*parts_.model.module))
    figures.update({{"device_memory", device->resident}, {"peak_device_memory", device->peak}});
  for (const auto& [name, value] : interval_data_)
    if (name == "wait_s") figures["wait_s"] = value;
  return figures.dump();
}

void Progress::log_step(int64_t step, const StepStats& stats, int64_t skipped, int64_t failed_saves,
                        const std::vector<std::string>& figures) {
  if (is_silent_) return;
  const Most most(figures);
  peak_memory_ = std::max(peak_memory_, static_cast<int64_t>(most.of("peak_memory").value_or(0)));
  const double loss =  // of an interval in which no step was finite: what made the last one not so
      interval_loss_.defined() ? interval_loss_.item<double>() / static_cast<double>(interval_targets_)
                               : stats.loss.item<double>();
  const double norm = stats.clip.norm.item<double>();
  const double bits =
      interval_nll_.defined()
          ? interval_nll_.item<double>() / (static_cast<double>(interval_text_.bytes) * std::numbers::ln2)
          : std::nan("");
  const double seconds = seconds_since(interval_started_) - interval_validation_s_;
  const double speed = static_cast<double>(interval_text_.bytes) / seconds;
  const double communication_share = interval_transfer_wait_s_ / seconds;
  const double model_flops = parts_.flops ? parts_.flops(interval_text_) : 0.0,
               flops_per_s = model_flops / seconds;
  const std::optional<double> waited_s = most.of("wait_s");
  const auto bytes_of = [&](const char* name) { return static_cast<int64_t>(most.of(name).value_or(0)); };
  loss_ = loss;
  bits_per_byte_ = bits;
  flops_ += model_flops;
  entropy_flops_ += interval_entropy_flops_;
  waited_s_ += waited_s.value_or(0);
  transfer_wait_s_ += interval_transfer_wait_s_;
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
  parts.push_back(fmt::format("lr {:.1e}", learning_rate));
  if (flops_per_s > 0)
    parts.push_back(flops(flops_per_s) +
                    (peak_flops_ > 0 ? fmt::format(" {:.1f}%", 100 * flops_per_s / peak_flops_) : ""));
  parts.push_back(fmt::format("norm {:.2f}", norm));
  if (ranks_of(parts_) > 1) parts.push_back(fmt::format("communication {:.1f}%", 100 * communication_share));
  if (skipped > 0) parts.push_back(fmt::format("skipped {}", skipped));
  if (waited_s) parts.push_back(fmt::format("waits {:.1f}%", 100 * *waited_s / seconds));
  parts.push_back("memory " + mebibytes(bytes_of("memory")));
  show(parts);
  if (rows_) {
    nlohmann::ordered_json row = {{"step", step}, {"loss", loss}};
    if (!std::isnan(bits)) row["bits_per_byte"] = bits;
    row.update({{"step_bytes", stats.text.bytes},
                {"bytes_per_s", speed},
                {"learning_rate", learning_rate},
                {"gradient_norm", norm}});
    const std::vector<double> norms = numbers(stats.module_norms);
    for (size_t i = 0; i < norms.size(); ++i) row["gradient_norm." + modules_[i]] = norms[i];
    if (flops_per_s > 0) row["flops_per_s"] = flops_per_s;
    if (interval_entropy_flops_ > 0) row["entropy_model_flops_per_s"] = interval_entropy_flops_ / seconds;
    if (flops_per_s > 0 && peak_flops_ > 0) row["utilization"] = flops_per_s / peak_flops_;
    row["skipped_steps"] = skipped;
    row["failed_saves"] = failed_saves;
    for (const std::string name : {"memory", "peak_memory", "device_memory", "peak_device_memory"})
      if (most.of(name)) row[name + "_bytes"] = bytes_of(name.c_str());
    if (waited_s) row["wait_share"] = *waited_s / seconds;
    if (ranks_of(parts_) > 1)
      row.update({{"communication_wait_s", interval_transfer_wait_s_},
                  {"communication_share", communication_share}});
    for (const auto& [name, value] : interval_data_) row["data." + name] = value;
    std::vector<EventFile::Scalar> scalars;
    for (const auto& [name, value] : row.items())
      if (name != "step" && value.is_number()) scalars.push_back({"train/" + name, value.get<double>()});
    write(step, row.dump(), std::move(scalars));
  }
  interval_targets_ = 0;
  interval_text_ = {};
  interval_transfer_wait_s_ = interval_entropy_flops_ = interval_validation_s_ = 0;
  interval_loss_ = interval_nll_ = at::Tensor();
  interval_started_ = Clock::now();
}

void Progress::log_validation(int64_t step, double bits_per_byte, double seconds) {
  validation_s_ += seconds;
  interval_validation_s_ += seconds;
  if (is_silent_ || std::isnan(bits_per_byte)) return;
  valid_bits_per_byte_ = bits_per_byte;
  finish_line();
  fmt::print(stderr, "step {}: held-out bits/byte {:.4f}\n", step, bits_per_byte);
  if (!rows_) return;
  write(step, nlohmann::ordered_json{{"step", step}, {"valid_bits_per_byte", bits_per_byte}}.dump(),
        {{"valid/bits_per_byte", bits_per_byte}});
}

void Progress::log_skip(int64_t step, const std::string& reason, const std::vector<std::string>& texts) {
  if (!rows_) return;
  write(step, nlohmann::ordered_json{{"step", step}, {"skipped", reason}, {"documents", texts}}.dump());
}

void Progress::show_profile(const StepProfile& profile, const fs::path& trace) {
  if (is_silent_) return;
  finish_line();
  fmt::print(stderr, "{}", to_table(profile));
  if (!trace.empty()) fmt::print(stderr, "trace: {} (ui.perfetto.dev shows it)\n", trace.string());
  std::fflush(stderr);
}

void Progress::log_save(int64_t step, const SaveTimes& times) {
  if (!rows_) return;
  write(step, nlohmann::ordered_json{{"step", step},
                                     {"checkpoint_stop_s", times.stop_s},
                                     {"checkpoint_wait_s", times.wait_s},
                                     {"checkpoint_copy_s", times.copy_s}}
                  .dump());
}

void Progress::summarize(const End& end) {
  if (is_silent_ || end.step == first_step_) return;
  finish_line();
  const double seconds = seconds_since(started_), in_steps = seconds - validation_s_ - end.saving_s;
  const double speed = static_cast<double>(bytes_) / in_steps, flops_per_s = flops_ / in_steps;
  std::string text = fmt::format("{} steps in {}, {} of text: {}", end.step - first_step_, duration(seconds),
                                 format_bytes(static_cast<uint64_t>(bytes_)), rate(speed));
  if (flops_per_s > 0) text += ", " + flops(flops_per_s);
  if (flops_per_s > 0 && peak_flops_ > 0)
    text += fmt::format(" ({:.1f}% of the peak)", 100 * flops_per_s / peak_flops_);
  if (entropy_flops_ > 0) text += ", the entropy model " + flops(entropy_flops_ / in_steps);
  if (parts_.metrics) text += fmt::format(", waited {:.1f}% of the time", 100 * waited_s_ / in_steps);
  if (ranks_of(parts_) > 1) text += fmt::format(", communication {:.1f}%", 100 * transfer_wait_s_ / in_steps);
  text += fmt::format("\n  memory      at most {}{}\n", mebibytes(peak_memory_),
                      ranks_of(parts_) > 1 ? " on a rank" : "");
  text += fmt::format("  loss        {:.4f}", loss_);
  if (!std::isnan(bits_per_byte_)) text += fmt::format(", {:.4f} bits/byte", bits_per_byte_);
  text += "\n";
  if (valid_bits_per_byte_ > 0) text += fmt::format("  held-out    {:.4f} bits/byte", valid_bits_per_byte_);
  if (valid_bits_per_byte_ > 0 && end.best_step > 0)
    text += fmt::format(", best {:.4f} at step {}", end.best_bits_per_byte, end.best_step);
  if (valid_bits_per_byte_ > 0) text += "\n";
  if (end.skipped > 0)
    text +=
        fmt::format("  skipped     {} step{} changed nothing\n", end.skipped, end.skipped == 1 ? "" : "s");
  if (!end.checkpoint.empty()) text += fmt::format("  checkpoint  {}\n", end.checkpoint.string());
  if (!metrics_path_.empty())
    text += fmt::format("  numbers     {}; tensorboard --logdir {}\n", metrics_path_.string(),
                        metrics_path_.parent_path().string());
  fmt::print(stderr, "{}", text);
  std::fflush(stderr);
}

// What goes wrong is said once: the rest of the disk's story is told by the checkpoints.
void Progress::write(int64_t step, const std::string& row, std::vector<EventFile::Scalar> scalars) {
  Rows rows{.lines = row + "\n"};
  if (!scalars.empty()) rows.events.emplace_back(step, std::move(scalars));
  const std::string problem = rows_->write(std::move(rows));
  if (problem.empty() || std::exchange(has_warned_, true)) return;
  finish_line();
  log_warning(fmt::format("{}; the training goes on, and rows of metrics wait in memory", problem));
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
    OpenLine::begin();
  } else {
    fmt::print(stderr, "{}\n", line);
  }
  std::fflush(stderr);
}

void Progress::finish_line() { OpenLine::end(); }

}  // namespace blt
