#include "train/same_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "io/hf_config.h"

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

}  // namespace

void require_same_run(const fs::path& checkpoint, const RunSettings& settings, const ModelConfig& model) {
  require_same(checkpoint, settings, read_model_config(checkpoint), as_read_back(model), "");
}

void require_same_run(const fs::path& checkpoint, const RunSettings& settings,
                      const EntropyModelConfig& entropy_model) {
  require_same(checkpoint, settings, read_entropy_model_config(checkpoint), as_read_back(entropy_model),
               "entropy_model.");
}

}  // namespace blt
