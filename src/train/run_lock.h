// Keeps two runs out of one folder.
#pragma once

#include <filesystem>

namespace blt {

// While one lives, no other process takes the same folder: it holds an advisory lock (flock) on `folder/run.lock`, which says whose it
// is. The kernel releases it when the process ends in whatever way, so a file that a killed run left behind locks nothing. Makes the
// folder where there is none; at the end the file goes, and so does a folder that it made and that stayed empty.
class FolderLock {
 public:
  // Throws blt::Error when another process holds the lock, naming it, and when the folder cannot be written. Where the file system has
  // no locks, a warning is all.
  explicit FolderLock(std::filesystem::path folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  bool lock_file();  // false: the file was removed meanwhile by the run that had it

  std::filesystem::path folder_, file_;
  bool made_folder_ = false;
  int descriptor_ = -1;
};

}  // namespace blt
