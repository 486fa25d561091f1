#include "data/parquet.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <system_error>

#include "blt/base/error.h"

namespace blt {
namespace {

// Arrow is loaded at run time and to itself: its libraries bring a simdjson of another version, under the names of the one that reads JSON
// Lines, and what libblt links would come before it in some programs and behind it in others. So the names of libblt's own hold.
struct Library {
  std::filesystem::path path;
  std::string problem;
  parquet_detail::Open* open = nullptr;

  Library() {
    Dl_info self{};
    ::dladdr(reinterpret_cast<void*>(&require_parquet), &self);
    path = std::filesystem::path(self.dli_fname).parent_path() / parquet_detail::kLibrary;
    std::error_code error;
    if (!std::filesystem::exists(path, error)) {
      problem = "it was configured without Arrow (run tools/setup --parquet, then configure and build again)";
      return;
    }
    void* const handle = ::dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
    if (handle != nullptr)
      open = reinterpret_cast<parquet_detail::Open*>(::dlsym(handle, parquet_detail::kOpen));
    if (open == nullptr) {
      const char* why = ::dlerror();
      problem = fmt::format("{}: where Arrow was moved, configure and build again",
                            why != nullptr ? why : path.c_str());
    }
  }
};

const Library& library() {
  static const Library result;
  return result;
}

}  // namespace

void require_parquet(const std::filesystem::path& path) {
  if (library().open == nullptr)
    throw Error(
        fmt::format("{}: this build of libblt reads no Parquet: {}", path.string(), library().problem));
}

std::unique_ptr<DocumentReader> open_parquet(const std::filesystem::path& path,
                                             const std::string& text_field) {
  require_parquet(path);
  return std::unique_ptr<DocumentReader>(library().open(path, text_field));
}

}  // namespace blt
