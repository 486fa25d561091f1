#include "train/run_start.h"

#include <fmt/format.h>

#include <system_error>
#include <vector>

#include "blt/base/error.h"
#include "blt/base/log.h"
#include "blt/io/model_dir.h"
#include "train/checkpoint.h"

namespace blt {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEntropyModelFolder = "entropy_model";

// The newest whole checkpoints in the folder of a run: of the Byte Latent Transformer, or of the entropy model before there is one.
Checkpoints newest_checkpoints(const fs::path& folder, Group& group) {
  Checkpoints found;
  found.blt = newest_whole_checkpoint(folder, group);
  if (!found.blt) found.entropy_model = newest_whole_checkpoint(folder / kEntropyModelFolder, group);
  return found;
}

// What the user names is a checkpoint, a link to one (`latest`), or the folder of a run, which means its newest whole one.
fs::path named_checkpoint(const std::string& resume, Group& group) {
  std::error_code error;
  const fs::path named = fs::canonical(resume, error);
  if (error) throw Error(fmt::format("--resume {}: {}", resume, error.message()));
  if (!fs::is_directory(named)) throw Error(fmt::format("--resume {}: is a file, no checkpoint", resume));
  if (fs::exists(named / kTrainerStateFile) || checkpoint_step(named)) {
    check_checkpoint(named, group);
    return named;
  }
  const Checkpoints newest = newest_checkpoints(named, group);
  if (!newest.blt && !newest.entropy_model)
    throw Error(
        fmt::format("--resume {}: is no checkpoint, and there is none in it; name a checkpoint (such as "
                    "runs/first/latest), the "
                    "folder of a run, or auto",
                    resume));
  return newest.blt ? *newest.blt : *newest.entropy_model;
}

// A checkpoint that the user names may lie in the run's output, then it must be the newest, or elsewhere, then the output must be fresh.
void require_room_after(const fs::path& checkpoint, const fs::path& output) {
  std::error_code ignored;
  if (!fs::equivalent(checkpoint.parent_path(), output, ignored)) return require_fresh_output(output);
  const std::vector<fs::path> there = list_checkpoints(output);
  if (there.empty()) return;
  const fs::path& newest = there.front();
  if (checkpoint_step(newest) != checkpoint_step(checkpoint))
    throw Error(
        fmt::format("--resume {}: {} is newer; remove what comes after the checkpoint, or name another "
                    "folder with output=…",
                    checkpoint.string(), newest.string()));
}

}  // namespace

Checkpoints find_checkpoints(const RunConfig& config, const std::optional<std::string>& resume,
                             Group& group) {
  const fs::path entropy_output = config.output / kEntropyModelFolder;
  Checkpoints found;
  if (!resume) {
    require_fresh_output(config.output);
    require_fresh_output(entropy_output);
    return found;
  }
  std::error_code ignored;
  if (fs::equivalent(*resume, config.output, ignored)) found = newest_checkpoints(config.output, group);
  if (*resume == "auto") {
    found = newest_checkpoints(config.output, group);
    if (!found.blt && !found.entropy_model) {
      log_info(fmt::format("no checkpoint in {}: starting", config.output.string()));
      return found;
    }
  } else if (!found.blt && !found.entropy_model) {
    const fs::path checkpoint = named_checkpoint(*resume, group);
    if (read_model_kind(checkpoint) == ModelKind::kBlt) {
      require_room_after(checkpoint, config.output);
      found.blt = checkpoint;
    } else {
      require_fresh_output(config.output);
      require_room_after(checkpoint, entropy_output);
      found.entropy_model = checkpoint;
    }
  }
  log_info(fmt::format("going on from {}", (found.blt ? *found.blt : *found.entropy_model).string()));
  return found;
}

}  // namespace blt
