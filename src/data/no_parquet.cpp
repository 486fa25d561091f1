#include <fmt/format.h>

#include "blt/base/error.h"
#include "data/parquet_reader.h"

namespace blt {

void require_parquet(const std::filesystem::path& path) {
  throw Error(
      fmt::format("{}: this build of libblt reads no Parquet: it was configured without Arrow (run "
                  "tools/setup --parquet, then configure and build again)",
                  path.string()));
}

std::unique_ptr<DocumentReader> open_parquet(const std::filesystem::path& path, const std::string&) {
  require_parquet(path);
  return nullptr;
}

}  // namespace blt
