#include <fmt/format.h>
#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <system_error>

#include "base/config_text.h"
#include "blt/base/error.h"
#include "blt/data/documents.h"
#include "data/byte_stream.h"
#include "data/parquet.h"

namespace blt {
namespace {

namespace fs = std::filesystem;

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }
bool has_wildcards(const fs::path& path) { return path.string().find_first_of("*?[") != std::string::npos; }

// Whether the components of a path match those of a pattern, from the given ones on; `**` takes any number of
// components.
bool matches(const std::vector<fs::path>& pattern, size_t p, const std::vector<fs::path>& path, size_t i) {
  if (p == pattern.size()) return i == path.size();
  if (pattern[p] == "**")
    return matches(pattern, p + 1, path, i) || (i < path.size() && matches(pattern, p, path, i + 1));
  return i < path.size() && ::fnmatch(pattern[p].c_str(), path[i].c_str(), FNM_PERIOD) == 0 &&
         matches(pattern, p + 1, path, i + 1);
}

// All files below a folder that are not hidden, nor in hidden folders, and not empty; sorted.
std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error), end;
  while (!error && entry != end) {
    const bool is_folder = entry->is_directory(error) && !entry->is_symlink();
    if (is_hidden(entry->path())) {
      if (is_folder) entry.disable_recursion_pending();
    } else if (std::error_code ignored;
               fs::is_regular_file(entry->path(), ignored) && fs::file_size(entry->path(), ignored) > 0) {
      files.push_back(entry->path());
    }
    error.clear();  // a link that leads nowhere is not a file
    entry.increment(error);
  }
  if (error) throw Error(fmt::format("{}: the folder cannot be read: {}", folder.string(), error.message()));
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<fs::path> files_of_glob(const fs::path& glob) {
  fs::path base;
  std::vector<fs::path> pattern;
  for (const fs::path& component : glob) {
    if (pattern.empty() && !has_wildcards(component))
      base /= component;
    else if (!component.empty())
      pattern.push_back(component);
  }
  if (base.empty()) base = ".";
  std::vector<fs::path> files;
  if (!fs::is_directory(base))
    throw Error(fmt::format("{}: there is no folder {}", glob.string(), base.string()));
  for (const fs::path& file : files_below(base)) {
    const fs::path below = file.lexically_relative(base);
    if (matches(pattern, 0, {below.begin(), below.end()}, 0)) files.push_back(file);
  }
  if (files.empty()) throw Error(fmt::format("{}: no file matches this pattern", glob.string()));
  return files;
}

[[noreturn]] void fail_missing(const fs::path& path) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::error_code error;
  if (!fs::is_directory(folder, error))
    throw Error(fmt::format("{}: there is no such file, nor a folder {}", path.string(), folder.string()));
  std::vector<std::string> names;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    names.push_back(entry->path().filename().string());
  std::sort(names.begin(), names.end());
  const std::string given = path.filename().string();
  throw Error(fmt::format("{}: there is no such file or folder{}", path.string(),
                          config_detail::did_you_mean(given, {names.begin(), names.end()})));
}

std::vector<fs::path> expand(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) {
    if (has_wildcards(path)) return files_of_glob(path);
    fail_missing(path);
  }
  if (error) throw Error(fmt::format("{}: cannot be read: {}", path.string(), error.message()));
  if (fs::is_directory(status)) {
    auto files = files_below(path);
    if (files.empty())
      throw Error(
          fmt::format("{}: there is no file with text in this folder (hidden and empty ones do not count)",
                      path.string()));
    return files;
  }
  if (fs::is_regular_file(status) && fs::file_size(path) == 0)
    throw Error(fmt::format("{}: the file is empty: there is nothing to read", path.string()));
  return {path};
}

DocumentFormat format_of(const fs::path& path, DocumentFormat format) {
  if (format != DocumentFormat::kAuto) return format;
  const fs::path name = compression_of(path) == Compression::kNone ? path : path.stem();
  if (name.extension() == ".jsonl" || name.extension() == ".ndjson") return DocumentFormat::kJsonLines;
  if (name.extension() == ".parquet") return DocumentFormat::kParquet;
  return DocumentFormat::kText;
}

// Their index is at the end: what can be read in its order alone is nothing for them.
void check_parquet(const fs::path& path) {
  if (path == "-") throw Error("standard input: a Parquet file cannot be read from there: name the file");
  if (compression_of(path) != Compression::kNone)
    throw Error(fmt::format(
        "{}: a Parquet file is not read out of an archive: decompress it (its pages are compressed as it is)",
        path.string()));
  require_parquet(path);
}

}  // namespace

std::vector<DataFile> find_files(const SourceConfig& source) {
  std::vector<DataFile> result;
  const auto add = [&](const fs::path& path) {
    const DocumentFormat format = format_of(path, source.format);
    if (format == DocumentFormat::kParquet) check_parquet(path);
    result.push_back({.path = path, .format = format, .number = static_cast<int32_t>(result.size())});
  };
  for (const fs::path& path : source.paths) {
    if (path == "-") {
      add(path);
      continue;
    }
    for (const fs::path& file : expand(path)) {
      if (::access(file.c_str(), R_OK) != 0)
        throw Error(
            fmt::format("{}: cannot be read: {}", file.string(), std::generic_category().message(errno)));
      add(file);
    }
  }
  if (result.empty()) throw Error("there is no data to read: name a file, a folder or a glob");
  return result;
}

}  // namespace blt
