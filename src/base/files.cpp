#include "blt/base/files.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "blt/base/error.h"

namespace blt {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void fail(const fs::path& path, const std::string& action, int error) {
  throw Error(path.string() + ": cannot " + action + ": " + std::generic_category().message(error));
}

fs::path folder_of(const fs::path& path) {
  return path.parent_path().empty() ? fs::path(".") : path.parent_path();
}

// Hidden, in the same folder, not used by any other process or thread of this machine.
fs::path temporary_name(const fs::path& path) {
  static std::atomic<int> counter{0};
  const std::string suffix = ".tmp-" + std::to_string(getpid()) + "-" + std::to_string(counter++);
  return folder_of(path) / ("." + path.filename().string() + suffix);
}

// Names in a folder outlive a power failure only once the folder itself is synced. File systems that cannot do it say EINVAL.
void sync_path(const fs::path& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail(path, "open", errno);
  const int error = fsync(descriptor) == 0 ? 0 : errno;
  close(descriptor);
  if (error != 0 && error != EINVAL && error != ENOTSUP) fail(path, "write", error);
}

void rename_path(const fs::path& from, const fs::path& to) {
  if (rename(from.c_str(), to.c_str()) != 0) fail(to, "write", errno);
}

void write_all(int descriptor, const fs::path& path, const void* data, size_t num_bytes) {
  const char* next = static_cast<const char*>(data);
  while (num_bytes > 0) {
    const ssize_t count = ::write(descriptor, next, num_bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path, "write", errno);
    next += count;
    num_bytes -= static_cast<size_t>(count);
  }
}

bool exchange_paths(const fs::path& a, const fs::path& b) {
#ifdef RENAME_EXCHANGE
  return renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
#else
  return false;
#endif
}

}  // namespace

std::string read_file(const fs::path& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail(path, "read", errno);
  std::string content;
  struct stat status;
  if (fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode))
    content.reserve(static_cast<size_t>(status.st_size));
  std::array<char, 1 << 16> buffer;
  ssize_t count;
  while ((count = ::read(descriptor, buffer.data(), buffer.size())) != 0) {
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int error = errno;
      close(descriptor);
      fail(path, "read", error);
    }
    content.append(buffer.data(), static_cast<size_t>(count));
  }
  close(descriptor);
  return content;
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)) {
  struct stat status;
  if (stat(path_.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) fail(path_, "write", EISDIR);
  const bool is_special = stat(path_.c_str(), &status) == 0 && !S_ISREG(status.st_mode);
  if (is_special) {
    descriptor_ = open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  } else {
    temporary_ = temporary_name(path_);
    descriptor_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  }
  if (descriptor_ < 0) fail(path_, "write", errno);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  close(descriptor_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t num_bytes) { write_all(descriptor_, path_, data, num_bytes); }

void AtomicFile::commit() {
  if (!temporary_.empty()) {
    if (fsync(descriptor_) != 0) fail(path_, "write", errno);
    rename_path(temporary_, path_);
    sync_path(folder_of(path_));
  }
  const int result = close(std::exchange(descriptor_, -1));
  if (result != 0) fail(path_, "write", errno);
}

void write_file(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

AppendFile::AppendFile(fs::path path) : path_(std::move(path)) {
  descriptor_ = open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail(path_, "write", errno);
}

AppendFile::~AppendFile() { close(descriptor_); }

void AppendFile::append(std::string_view text) {
  struct stat before;
  if (fstat(descriptor_, &before) != 0) fail(path_, "write", errno);
  try {
    write_all(descriptor_, path_, text.data(), text.size());
  } catch (const Error&) {
    // Where that fails too, part of it stays, which readers expect of a process that was killed.
    if (S_ISREG(before.st_mode)) [[maybe_unused]]
      const int result = ftruncate(descriptor_, before.st_size);
    throw;
  }
}

void AppendFile::sync() {
  if (fsync(descriptor_) != 0 && errno != EINVAL && errno != ENOTSUP) fail(path_, "write", errno);
}

AtomicDirectory::AtomicDirectory(fs::path final_path) : final_(std::move(final_path)) {
  if (!final_.has_filename()) final_ = final_.parent_path();  // "run/" is "run"
  temporary_ = temporary_name(final_);
  if (mkdir(temporary_.c_str(), 0777) != 0) fail(final_, "write", errno);
}

AtomicDirectory::~AtomicDirectory() {
  if (temporary_.empty()) return;
  // Under another name first: who still fills it, another process perhaps, adds nothing while it is removed.
  const fs::path gone = temporary_.string() + "-gone";
  std::error_code ignored;
  fs::rename(temporary_, gone, ignored);
  fs::remove_all(ignored ? temporary_ : gone, ignored);
}

void AtomicDirectory::commit() {
  try {
    for (const auto& entry : fs::recursive_directory_iterator(temporary_))
      if (entry.is_regular_file() || entry.is_directory()) sync_path(entry.path());
    sync_path(temporary_);
    if (!fs::exists(fs::symlink_status(final_))) {
      rename_path(temporary_, final_);
      temporary_.clear();
    } else if (!exchange_paths(temporary_, final_)) {
      const fs::path old = temporary_name(final_);
      rename_path(final_, old);
      if (rename(temporary_.c_str(), final_.c_str()) != 0) {
        const int error = errno;
        rename_path(old, final_);
        fail(final_, "write", error);
      }
      temporary_ = old;
    }
    sync_path(folder_of(final_));
    if (!temporary_.empty()) fs::remove_all(temporary_);  // what was there before
    temporary_.clear();
  } catch (const fs::filesystem_error& e) {
    fail(final_, "write", e.code().value());
  }
}

void throw_write_error(const fs::path& path) { fail(path, "write", errno == 0 ? EIO : errno); }

std::string format_bytes(uint64_t num_bytes) {
  constexpr std::array<const char*, 5> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (num_bytes < 1024) return std::to_string(num_bytes) + (num_bytes == 1 ? " byte" : " bytes");
  double size = static_cast<double>(num_bytes) / 1024;
  size_t unit = 0;
  while (size >= 1023.95 && unit + 1 < kUnits.size()) {  // would print as 1024.0
    size /= 1024;
    ++unit;
  }
  std::array<char, 32> text;
  std::snprintf(text.data(), text.size(), "%.1f %s", size, kUnits[unit]);
  return text.data();
}

}  // namespace blt
