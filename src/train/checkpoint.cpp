#include "train/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>

#include "blt/base/error.h"
#include "blt/base/log.h"
#include "train/manifest.h"

namespace blt {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step_";

// A link is replaced by renaming another over it, so that it always points at a whole checkpoint.
void point(const fs::path& link, const std::string& target) {
  std::error_code error;
  if (fs::read_symlink(link, error) == target) return;
  const fs::path fresh = link.parent_path() / fmt::format(".{}.new", link.filename().string());
  fs::remove(fresh, error);
  fs::create_directory_symlink(target, fresh, error);
  if (!error) fs::rename(fresh, link, error);
  if (!error) return;
  std::error_code ignored;
  fs::remove(fresh, ignored);
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

}  // namespace

std::string checkpoint_name(int64_t step) { return fmt::format("{}{:08}", kPrefix, step); }

std::string apply_policy(const fs::path& output, int64_t step, const KeepPolicy& keep) {
  std::string problem;
  const auto try_to_point = [&](const char* link, const std::string& target) {
    try {
      point(output / link, target);
    } catch (const Error& e) {
      problem += fmt::format("{}{}", problem.empty() ? "" : "; ", e.what());
    }
  };
  try_to_point("latest", checkpoint_name(step));
  const std::string best = checkpoint_name(keep.best_step);
  std::error_code ignored;
  if (keep.best_step > 0 && fs::exists(output / best, ignored)) try_to_point("best", best);
  if (keep.newest == 0) return problem;
  int64_t newest = 0;
  for (const fs::path& folder : list_checkpoints(output)) {
    const int64_t of = *checkpoint_step(folder);
    if (newest++ < keep.newest) continue;
    if (of != keep.best_step && (keep.every == 0 || of % keep.every != 0)) remove_checkpoint(folder);
  }
  return problem;
}

namespace {

// It counts as a checkpoint no more, and the run that goes on before it will have another one of its step.
void set_aside(const fs::path& folder) {
  const fs::path aside = folder.string() + ".damaged";
  std::error_code error;
  fs::remove_all(aside, error);
  fs::rename(folder, aside, error);
  if (error)
    log_warning(fmt::format("{}: is damaged, and cannot be renamed: {}", folder.string(), error.message()));
  else
    log_warning(fmt::format("{} is damaged: it is {} now, and can be removed", folder.string(),
                            aside.filename().string()));
}

}  // namespace

void tidy_checkpoints(const fs::path& output, std::optional<int64_t> step, const KeepPolicy& keep) {
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(output, error)) {
    const std::string name = entry.path().filename().string();
    const bool unfinished = name.starts_with(fmt::format(".{}", kPrefix)) && name.find(".tmp-") != name.npos;
    if (unfinished || name == ".latest.new" || name == ".best.new") leftovers.push_back(entry.path());
  }
  for (const fs::path& leftover : leftovers) fs::remove_all(leftover, error);
  if (step)
    for (const fs::path& folder : list_checkpoints(output))
      if (*checkpoint_step(folder) > *step) set_aside(folder);
  const std::string problem = step ? apply_policy(output, *step, keep) : "";
  if (!problem.empty()) log_warning(problem);
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

void check_checkpoint(const fs::path& folder, Group& group) {
  check_files(folder, group);
  for (const char* name : {kTrainerStateFile, kModelFile, kOptimizerFile})
    if (!fs::exists(folder / name)) throw Error(fmt::format("{}: is missing", (folder / name).string()));
}

std::optional<fs::path> newest_whole_checkpoint(const fs::path& output, Group& group) {
  std::string names;  // all ranks look at what the first one sees
  for (const fs::path& folder : list_checkpoints(output)) names += folder.filename().string() + "\n";
  std::istringstream seen(gather(group, names, "names of checkpoints")[0]);
  std::string newest_problem;
  for (std::string name; std::getline(seen, name);) {
    const fs::path folder = output / name;
    try {
      check_checkpoint(folder, group);
      return folder;
    } catch (const GroupError&) {
      throw;
    } catch (const Error& e) {
      if (group.is_first())
        log_warning(fmt::format("{} is damaged and passed over: {}", folder.string(), e.what()));
      if (newest_problem.empty()) newest_problem = e.what();
    }
  }
  if (!newest_problem.empty())
    throw Error(fmt::format(
        "{}: holds checkpoints, and none of them is whole (the newest: {}); nothing was changed. Make "
        "sure that all ranks see the whole folder, or start over in another one with output=…",
        output.string(), newest_problem));
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
