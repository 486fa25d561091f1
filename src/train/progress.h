// What a training run shows while it runs: a line on stderr, a line of JSON in metrics.jsonl, and TensorBoard's event file; and at its end.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "blt/io/event_file.h"
#include "blt/train/trainer.h"
#include "train/row_writer.h"
#include "train/step_profiler.h"

namespace blt {

// On a terminal one line is rewritten in place, and parts that a narrow window has no room for are left out, the least important first;
// in a file or a pipe every log step is a line of its own. A silent one shows and writes nothing. Not thread-safe.
class Progress {
 public:
  // modules: those of StepStats::module_norms. first_step: steps done before. What metrics.jsonl says about later ones, of a run that was
  // killed, goes. Throws blt::Error when the files cannot be written; when that happens later, or the disk hangs, it is warned about once, and rows
  // wait until they can be. Keeps references to the first three, which must outlive it.
  Progress(const TrainConfig& config, const TrainerParts& parts, const std::vector<std::string>& modules,
           int64_t first_step, bool is_silent);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void count(const StepStats& stats, bool taken);  // after every step; taken: it changed something
  // What this rank knows of itself, for log_step() of the first: how long it waited for batches since the last time, and its memory. The silent
  // ones are asked too.
  std::string own_figures();
  // Loss and bits per byte are means since the last log line, the gradient's norm is that of the last step. figures: of all ranks. Looks at the
  // device.
  void log_step(int64_t step, const StepStats& stats, int64_t skipped, int64_t failed_saves,
                const std::vector<std::string>& figures);
  // NaN: there was nothing to validate on, or it was not finished. It took `seconds`, which are no part of a step's time.
  void log_validation(int64_t step, double bits_per_byte, double seconds);
  // A step that changed nothing. reason: "nonfinite" or "spike"; texts: what it read.
  void log_skip(int64_t step, const std::string& reason, const std::vector<std::string>& texts);
  void show_profile(const StepProfile& profile,
                    const std::filesystem::path& trace);  // trace: empty: there is none
  void log_save(int64_t step, const SaveTimes& times);
  void finish_line();  // before anybody else writes to the terminal

  // Where a run stands when it ends.
  struct End {
    int64_t step = 0;
    int64_t best_step = 0;  // 0: there was no validation
    double best_bits_per_byte = 0.0;
    int64_t skipped = 0;                    // steps that changed nothing, since the run was first started
    double saving_s = 0.0;                  // from the last step until the last checkpoint was there
    std::filesystem::path checkpoint = {};  // the newest; empty: there is none
  };
  // What this start of the run did, in a few lines.
  void summarize(const End& end);

 private:
  using Clock = std::chrono::steady_clock;
  void show(const std::vector<std::string>& parts);
  // row: of metrics.jsonl; scalars: for TensorBoard.
  void write(int64_t step, const std::string& row, std::vector<EventFile::Scalar> scalars = {});

  const TrainConfig& config_;
  const TrainerParts& parts_;
  const std::vector<std::string>& modules_;
  double peak_flops_;  // of all ranks; 0: not known
  int64_t first_step_;
  std::filesystem::path metrics_path_;
  bool is_silent_, terminal_;
  std::optional<RowWriter> rows_;  // none: nothing is written
  bool has_warned_ = false;
  Clock::time_point started_, interval_started_;
  // Since the last log line.
  int64_t interval_targets_ = 0;
  TextCounts interval_text_ = {};
  double interval_entropy_flops_ = 0.0, interval_validation_s_ = 0.0;
  std::vector<std::pair<std::string, double>> interval_data_ = {};  // parts.metrics()
  at::Tensor interval_loss_, interval_nll_;  // [] nats over its targets, and over its bytes
  double interval_transfer_wait_s_ = 0.0;
  // Since the run started.
  int64_t peak_memory_ = 0;    // of the rank that has most, up to the last log line
  double validation_s_ = 0.0;  // spent outside of steps
  int64_t bytes_ = 0;
  double flops_ = 0.0, entropy_flops_ = 0.0, waited_s_ = 0.0,
         transfer_wait_s_ = 0.0;             // up to the last log line
  double loss_ = 0.0, bits_per_byte_ = 0.0;  // of the last log line
  double valid_bits_per_byte_ = 0.0;         // the last; 0: there was none
};

}  // namespace blt
