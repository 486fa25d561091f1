// Files that are whole or absent. Errors are blt::Error and name the path and the reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace blt {

// Throws when the file cannot be read or is a folder.
std::string read_file(const std::filesystem::path& path);

// Writes a file under a temporary name in the same folder; commit() makes it `path`, replacing what was
// there. Without a commit (an exception, a full disk) the temporary file goes and `path` is as it was. A path
// that is there but no regular file (/dev/stdout, a pipe) is written directly. Not thread-safe.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t num_bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();  // once, last: data and name are on the disk when it returns

 private:
  std::filesystem::path path_, temporary_;  // temporary_ is empty when writing directly
  int descriptor_ = -1;
};

// AtomicFile in one call.
void write_file(const std::filesystem::path& path, std::string_view content);

// A file that grows: each append() is in it whole, or not at all. Made where it is not there. Not thread-safe.
class AppendFile {
 public:
  explicit AppendFile(std::filesystem::path path);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  void append(std::string_view text);
  void sync();  // all of it is on the disk when it returns

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

// The same as AtomicFile for a folder: fill path(), then commit() syncs all of it and swaps it with `final_path`, which is
// removed only then. Without a commit the temporary folder goes. Not thread-safe.
class AtomicDirectory {
 public:
  explicit AtomicDirectory(std::filesystem::path final_path);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  const std::filesystem::path& path() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path final_, temporary_;
};

// For streams that failed: throws with the reason in errno, which the caller had set to 0 before it wrote.
[[noreturn]] void throw_write_error(const std::filesystem::path& path);

// "312 bytes", "1.5 MiB"
std::string format_bytes(uint64_t num_bytes);

}  // namespace blt
