// What the fuzzers share. A fuzzer is one function over bytes; it must neither crash, hang, nor break a promise of the reader under
// test, whatever the bytes. tests/fuzz/CMakeLists.txt has how to run them.
#pragma once

#include <stdlib.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

// The bytes of one run; libFuzzer's entry point, or the replay's (replay.cpp).
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace blt_fuzz {

// Ends the process, which is what libFuzzer takes for a find.
inline void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

// A folder of this process, for readers that want files: in memory where the system has such a place. On a disk most of the time goes into
// waiting: ext4 starts to write a file that is emptied and filled again when it is closed.
inline const std::filesystem::path& folder() {
  static const std::filesystem::path path = [] {
    std::string pattern = "/dev/shm/blt_fuzz_XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) {
      pattern = (std::filesystem::temp_directory_path() / "blt_fuzz_XXXXXX").string();
      require(mkdtemp(pattern.data()) != nullptr, "a temporary folder");
    }
    std::atexit([] { std::filesystem::remove_all(folder()); });
    return std::filesystem::path(pattern);
  }();
  return path;
}

inline std::filesystem::path write(const std::string& name, std::string_view bytes) {
  const std::filesystem::path path = folder() / name;
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path;
}

}  // namespace blt_fuzz
