#include "train/same_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/data/state.h"
#include "blt/train/schedule.h"
#include "io/hf_config.h"
#include "train/checkpoint.h"

namespace blt {
namespace {

namespace fs = std::filesystem;

// entropies_on_cpu: there the bits of an entropy do not depend on how many are computed at once.
bool may_change(std::string_view path, bool entropies_on_cpu) {
  if (path == "data.entropy_batch_bytes" && !entropies_on_cpu) return false;
  constexpr std::array kSections = {
      "output",       "train.",        "data.validation", "data.entropy_cache", "data.entropy_batch_bytes",
      "data.threads", "data.prefetch", "parallel."};
  constexpr std::array kFields = {".dropout", ".init_std_factor", ".init_base_std"};
  const auto begins = [&](std::string_view section) { return path.starts_with(section); };
  const auto ends = [&](std::string_view field) { return path.ends_with(field); };
  return std::any_of(kSections.begin(), kSections.end(), begins) ||
         std::any_of(kFields.begin(), kFields.end(), ends);
}

// "blt.window" of a model directory is "model.window" in a run.
std::string name_in_run(const std::string& path) {
  if (path.starts_with("blt.")) return "model." + path.substr(4);
  if (path.starts_with("entropy_model.")) return "entropy_model.model." + path.substr(14);
  return path;
}

template <class Settings>
void add_changes(const Settings& stored, const Settings& now, const std::string& prefix,
                 bool entropies_on_cpu, std::string& changes) {
  for (const ConfigDifference& difference : compare_configs(stored, now)) {
    const std::string path = name_in_run(prefix + difference.path);
    if (!may_change(path, entropies_on_cpu))
      changes += fmt::format("\n{} was {}, is {}", path, difference.a, difference.b);
  }
}

template <class Model>
void require_same(const fs::path& checkpoint, const RunSettings& settings, const Model& stored,
                  const Model& model, const std::string& prefix) {
  std::string changes;
  const bool entropies_on_cpu = settings.data.entropy_device == "cpu";
  add_changes(load_config<RunSettings>(checkpoint / "run.yaml"), settings, "", entropies_on_cpu, changes);
  add_changes(stored, model, prefix, entropies_on_cpu, changes);
  if (!changes.empty())
    throw Error(
        fmt::format("{}: was made with other settings, and cannot go on with these:{}\n"
                    "resume with those of the run, or start a new one from its model with --init",
                    checkpoint.string(), changes));
}

// The batches of a step, on all ranks.
struct StepSize {
  int64_t ranks = 1, accumulate = 1;

  int64_t batches() const { return ranks * accumulate; }
};

// "2 ranks x 4 batches x 16384 bytes = 131072 bytes"
std::string to_text(const StepSize& step, const DataConfig& data) {
  const bool in_patches = data.batch_patches && !data.batch_bytes;
  const int64_t batch =
      in_patches ? *data.batch_patches : data.batch_bytes.value_or(DataConfig::kDefaultBatchBytes);
  const char* unit = in_patches ? "patches" : "bytes";
  return fmt::format("{} rank{} x {} batch{} x {} {} = {} {}", step.ranks, step.ranks == 1 ? "" : "s",
                     step.accumulate, step.accumulate == 1 ? "" : "es", batch, unit, step.batches() * batch,
                     unit);
}

// What makes so many batches with so many ranks, or as nearly as can be. setting: train.accumulate
std::string advice(int64_t batches, int64_t ranks, const std::string& setting) {
  const int64_t fewer = batches / ranks;
  if (batches % ranks == 0) return fmt::format("{}={} keeps the size", setting, fewer);
  const std::string near =
      fewer > 0 ? fmt::format("{} and {} are nearest", fewer, fewer + 1) : "1 is nearest";
  return fmt::format("with {} ranks no {} keeps the size ({}); a number of ranks that divides {} does", ranks,
                     setting, near, batches);
}

}  // namespace

void require_same_run(const fs::path& checkpoint, const RunSettings& settings, const ModelConfig& model) {
  require_same(checkpoint, settings, read_model_config(checkpoint), as_read_back(model), "");
}

void require_same_run(const fs::path& checkpoint, const RunSettings& settings,
                      const EntropyModelConfig& entropy_model) {
  require_same(checkpoint, settings, read_entropy_model_config(checkpoint), as_read_back(entropy_model),
               "entropy_model.");
}

std::string change_of_step_size(const fs::path& checkpoint, const RunSettings& settings, int64_t ranks,
                                std::string_view train) {
  const TrainConfig then = load_config<RunSettings>(checkpoint / "run.yaml").train, &now = settings.train;
  const fs::path file = checkpoint / kTrainerStateFile;
  const StateReader state(read_file(file), file.string());
  const int64_t first = state.integer("step"), ranks_then = state.integer("ranks");
  std::set<int64_t> changes = {first};  // where either number of batches may be another
  for (const TrainConfig* config : {&then, &now})
    for (const AccumulateFrom& from : config->accumulate_from) changes.insert(from.step);
  for (const int64_t step : changes) {
    const StepSize before{ranks_then, then.accumulate_at(step)}, after{ranks, now.accumulate_at(step)};
    if (step < first || step >= now.steps || before.batches() == after.batches()) continue;
    const bool is_of_a_list = now.accumulate_at(step) != now.accumulate || step > first;
    return fmt::format(
        "from step {} on a step is of another size than in the run of {}: {}, where it was {}, and the "
        "learning "
        "rate was chosen for that; {}",
        step + 1, checkpoint.string(), to_text(after, settings.data), to_text(before, settings.data),
        advice(before.batches(), ranks,
               fmt::format("{}.{}", train, is_of_a_list ? "accumulate_from: batches" : "accumulate")));
  }
  return "";
}

std::string change_of_learning_rate(const fs::path& checkpoint, const RunSettings& settings,
                                    std::string_view train) {
  const TrainConfig then = load_config<RunSettings>(checkpoint / "run.yaml").train, &now = settings.train;
  const fs::path file = checkpoint / kTrainerStateFile;
  const int64_t step = StateReader(read_file(file), file.string()).integer("step");
  if (step >= now.steps) return "";
  const double before = learning_rate_factor(then.schedule, step, then.steps),
               after = learning_rate_factor(now.schedule, step, now.steps);
  if (std::abs(after - before) <= 0.01 * std::max(after, before)) return "";
  return fmt::format(
      "step {} has {:.3g} of the peak learning rate, where the run of {} came to {:.3g}: {}.schedule is over "
      "{} "
      "steps, and was over {}; a schedule of kind wsd (before its decay) or constant can be lengthened "
      "without "
      "a jump",
      step + 1, after, checkpoint.string(), before, train, now.steps, then.steps);
}

}  // namespace blt
