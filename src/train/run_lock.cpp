#include "train/run_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/base/log.h"

namespace blt {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

// "process 4711 on host"
std::string own_name() {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return fmt::format("process {} on {}", getpid(), host.data());
}

}  // namespace

FolderLock::FolderLock(std::filesystem::path folder)
    : folder_(std::move(folder)), file_(folder_ / "run.lock") {
  std::error_code error;
  made_folder_ = std::filesystem::create_directories(folder_, error);
  if (error) throw Error(fmt::format("{}: cannot make this folder: {}", folder_.string(), error.message()));
  while (!lock_file()) {
  }
  const std::string name = own_name() + "\n";
  if (ftruncate(descriptor_, 0) != 0 ||
      pwrite(descriptor_, name.data(), name.size(), 0) != static_cast<ssize_t>(name.size()))
    log_warning(fmt::format("{}: cannot write: {}", file_.string(), reason(errno)));
}

bool FolderLock::lock_file() {
  descriptor_ = open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw Error(fmt::format("{}: cannot write: {}", file_.string(), reason(errno)));
  if (flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    if (error != EWOULDBLOCK) {
      log_warning(
          fmt::format("{}: cannot lock: {}; see to it yourself that no other run writes into this folder",
                      file_.string(), reason(error)));
      return true;
    }
    std::string holder = read_file(file_);
    holder.resize(std::min(holder.size(), holder.find('\n')));
    close(std::exchange(descriptor_, -1));
    throw Error(fmt::format(
        "{}: {} is writing into this folder (it holds run.lock); wait until it has ended, or name another "
        "folder with output=…",
        folder_.string(), holder.empty() ? "another process" : holder));
  }
  // Between opening and locking, the run that held the lock may have ended and removed the file.
  struct stat opened, named;
  if (fstat(descriptor_, &opened) == 0 && stat(file_.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
      opened.st_dev == named.st_dev)
    return true;
  close(std::exchange(descriptor_, -1));
  return false;
}

FolderLock::~FolderLock() {
  unlink(file_.c_str());
  close(descriptor_);
  if (made_folder_) rmdir(folder_.c_str());  // refused where something is in it
}

}  // namespace blt
