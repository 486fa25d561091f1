#include "train/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/base/log.h"
#include "blt/data/state.h"
#include "blt/io/safetensors.h"

namespace blt {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step_";

std::string name_of(int64_t step) { return fmt::format("{}{:08}", kPrefix, step); }

// A link is replaced by renaming another over it, so that it always points at a whole checkpoint.
void point(const fs::path& link, const std::string& target) {
  std::error_code error;
  if (fs::read_symlink(link, error) == target) return;
  const fs::path fresh = link.parent_path() / fmt::format(".{}.new", link.filename().string());
  fs::remove(fresh, error);
  fs::create_directory_symlink(target, fresh, error);
  if (!error) fs::rename(fresh, link, error);
  if (error)
    throw Error(fmt::format("{}: cannot be pointed at {}: {}", link.string(), target, error.message()));
}

// A folder that is being removed must not look like a checkpoint when the process ends half way.
void remove_checkpoint(const fs::path& folder) {
  const fs::path hidden = folder.parent_path() / fmt::format(".{}.tmp-old", folder.filename().string());
  std::error_code ignored;
  fs::remove_all(hidden, ignored);
  fs::rename(folder, hidden, ignored);
  fs::remove_all(hidden, ignored);
}

// step: of the newest that is whole; those after it are damaged, and not counted.
void apply(const fs::path& output, int64_t step, const KeepPolicy& keep) {
  point(output / "latest", name_of(step));
  const std::string best = name_of(keep.best_step);
  if (keep.best_step > 0 && fs::exists(output / best)) point(output / "best", best);
  if (keep.newest == 0) return;
  int64_t kept = 0;
  for (const fs::path& folder : list_checkpoints(output)) {
    if (checkpoint_step(folder) > step || kept++ < keep.newest) continue;
    if (keep.best_step == 0 || folder.filename() != best) remove_checkpoint(folder);
  }
}

}  // namespace

fs::path write_checkpoint(const fs::path& output, int64_t step, const KeepPolicy& keep,
                          const std::function<void(const fs::path&)>& save) {
  const std::string name = name_of(step);
  try {
    AtomicDirectory directory(output / name);
    save(directory.path());
    directory.commit();
  } catch (const Error& e) {
    const std::vector<fs::path> found = list_checkpoints(output);
    throw Error(fmt::format("step {}: the checkpoint was not saved: {}; {}", step, e.what(),
                            found.empty() ? "there is no earlier one"
                                          : fmt::format("the last whole one is {}", found.front().string())));
  }
  apply(output, step, keep);
  return output / name;
}

void CheckpointWriter::start(std::function<fs::path()> write) {
  writing_ = std::async(std::launch::async, std::move(write));
}

std::optional<fs::path> CheckpointWriter::finished() {
  if (!writing_.valid() || writing_.wait_for(std::chrono::seconds(0)) != std::future_status::ready)
    return std::nullopt;
  return writing_.get();
}

std::optional<fs::path> CheckpointWriter::wait() {
  if (!writing_.valid()) return std::nullopt;
  return writing_.get();
}

void tidy_checkpoints(const fs::path& output, std::optional<int64_t> step, const KeepPolicy& keep) {
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(output, error)) {
    const std::string name = entry.path().filename().string();
    const bool unfinished = name.starts_with(fmt::format(".{}", kPrefix)) && name.find(".tmp-") != name.npos;
    if (unfinished || name == ".latest.new" || name == ".best.new") leftovers.push_back(entry.path());
  }
  for (const fs::path& leftover : leftovers) fs::remove_all(leftover, error);
  if (step) apply(output, *step, keep);
}

std::optional<int64_t> checkpoint_step(const fs::path& folder) {
  const std::string name = folder.filename().string();
  int64_t step = 0;
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const char* end = name.data() + name.size();
  const auto [last, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (error != std::errc() || last != end) return std::nullopt;
  return step;
}

std::vector<fs::path> list_checkpoints(const fs::path& output) {
  std::vector<fs::path> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(output, error))
    if (checkpoint_step(entry.path()) && entry.is_directory() && !entry.is_symlink())
      found.push_back(entry.path());
  std::sort(found.begin(), found.end(),
            [](const fs::path& a, const fs::path& b) { return checkpoint_step(a) > checkpoint_step(b); });
  return found;
}

void check_checkpoint(const fs::path& folder) {
  if (!fs::is_directory(folder))
    throw Error(fmt::format("{}: is no checkpoint: there is no such folder", folder.string()));
  const fs::path state = folder / kTrainerStateFile;
  StateReader(read_file(state), state.string()).integer("step");
  if (!fs::exists(folder / kOptimizerFile))
    throw Error(fmt::format("{}: is missing", (folder / kOptimizerFile).string()));
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") SafetensorsFile(entry.path());
}

std::optional<fs::path> newest_whole_checkpoint(const fs::path& output) {
  for (const fs::path& folder : list_checkpoints(output)) {
    try {
      check_checkpoint(folder);
      return folder;
    } catch (const Error& e) {
      log_warning(fmt::format("{} is damaged and passed over: {}", folder.string(), e.what()));
    }
  }
  return std::nullopt;
}

void require_fresh_output(const fs::path& output) {
  const std::vector<fs::path> found = list_checkpoints(output);
  if (!found.empty())
    throw Error(fmt::format(
        "{}: holds checkpoints of an earlier run ({}); go on from them with --resume auto, name another "
        "folder with output=…, or remove it",
        output.string(), found.front().filename().string()));
}

}  // namespace blt
