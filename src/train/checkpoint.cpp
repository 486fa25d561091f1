#include "train/checkpoint.h"

#include <fmt/format.h>

#include <string>

#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/base/log.h"

namespace blt {

void write_checkpoint(const std::filesystem::path& output, int64_t step,
                      const std::function<void(const std::filesystem::path&)>& save) {
  const std::string name = fmt::format("step_{:08}", step);
  AtomicDirectory directory(output / name);
  save(directory.path());
  directory.commit();
  // A link is replaced by renaming another over it, so that `latest` always points at a whole checkpoint.
  const std::filesystem::path fresh = output / ".latest.new", latest = output / "latest";
  std::error_code error;
  std::filesystem::remove(fresh, error);
  std::filesystem::create_directory_symlink(name, fresh, error);
  if (!error) std::filesystem::rename(fresh, latest, error);
  if (error)
    throw Error(fmt::format("{}: cannot be pointed at {}: {}", latest.string(), name, error.message()));
  log_info(fmt::format("saved {}", (output / name).string()));
}

void require_fresh_output(const std::filesystem::path& output) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(output, error))
    if (entry.path().filename().string().starts_with("step_"))
      throw Error(fmt::format(
          "{}: holds checkpoints of an earlier run ({}); name another folder with output=…, or remove it",
          output.string(), entry.path().filename().string()));
}

}  // namespace blt
