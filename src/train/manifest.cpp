#include "train/manifest.h"

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "blt/base/error.h"
#include "blt/base/files.h"
#include "data/hash.h"

namespace blt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr uint64_t kPiece = 1 << 20;  // that is read at once

// [begin, end, rank, tensor, checksum]
json to_array(const WrittenRange& range) {
  return {range.begin, range.end, range.rank, range.tensor, fmt::format("{:016x}", range.checksum)};
}

WrittenRange from_array(const json& array) {
  return {.begin = array.at(0).get<uint64_t>(),
          .end = array.at(1).get<uint64_t>(),
          .rank = array.at(2).get<int64_t>(),
          .tensor = array.at(3).get<std::string>(),
          .checksum = std::stoull(array.at(4).get<std::string>(), nullptr, 16)};
}

void check_cover(const std::string& file, std::vector<WrittenRange>& ranges, uint64_t size) {
  std::sort(ranges.begin(), ranges.end(), [](const WrittenRange& a, const WrittenRange& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t next = 0;
  for (const WrittenRange& range : ranges) {
    if (range.begin != next)
      throw Error(fmt::format("{}: the bytes from {} to {} were written by {}", file,
                              std::min(next, range.begin), std::max(next, range.begin),
                              range.begin > next ? "no rank" : "two ranks"));
    next = range.end;
  }
  if (next != size)
    throw Error(fmt::format("{}: the bytes from {} to {} were written by no rank", file, next, size));
}

// The manifest ends with what its own text before was.
std::string own_checksum(std::string_view text) {
  return fmt::format(",\n\"manifest\": \"{:016x}\"}}\n", checksum(text.data(), text.size()));
}

json parse_manifest(const fs::path& path) {
  const std::string text = read_file(path);
  const size_t length = own_checksum("").size();
  const std::string_view before(text.data(), text.size() - std::min(length, text.size()));
  if (!text.ends_with(own_checksum(before)))
    throw Error(fmt::format("{}: is not as it was written: cut short or damaged", path.string()));
  return json::parse(text);
}

// A file that is read at any place. Thread-safe.
class ReadFile {
 public:
  explicit ReadFile(fs::path path) : path_(std::move(path)) {
    descriptor_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail(errno);
  }
  ~ReadFile() { close(descriptor_); }
  ReadFile(const ReadFile&) = delete;
  ReadFile& operator=(const ReadFile&) = delete;

  uint64_t checksum(uint64_t begin, uint64_t end) const {
    Hash64 hash;
    std::vector<char> piece(std::min(kPiece, end - begin));
    while (begin < end) {
      const ssize_t count = pread(descriptor_, piece.data(), std::min<uint64_t>(piece.size(), end - begin),
                                  static_cast<off_t>(begin));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail(errno);
      if (count == 0) throw Error(fmt::format("{}: became shorter while it was read", path_.string()));
      hash.update(piece.data(), static_cast<size_t>(count));
      begin += static_cast<uint64_t>(count);
    }
    return hash.digest();
  }

 private:
  [[noreturn]] void fail(int error) const {
    throw Error(fmt::format("{}: cannot read: {}", path_.string(), std::generic_category().message(error)));
  }
  fs::path path_;
  int descriptor_ = -1;
};

struct FileToCheck {
  fs::path path;
  std::vector<WrittenRange> ranges;
};

// Sizes are looked at here.
std::vector<FileToCheck> read_manifest(const fs::path& folder) {
  if (!fs::is_directory(folder))
    throw Error(fmt::format("{}: is no checkpoint: there is no such folder", folder.string()));
  const fs::path manifest = folder / kManifestFile;
  std::vector<FileToCheck> files;
  try {
    const json root = parse_manifest(manifest);
    for (const auto& [name, file] : root.at("files").items()) {
      const fs::path inside = fs::path(name).lexically_normal();
      if (inside.is_absolute() || inside.begin() == inside.end() || *inside.begin() == "..")
        throw Error(fmt::format("{}: lists {}, which is not in the checkpoint", manifest.string(), name));
      FileToCheck found{.path = folder / inside, .ranges = {}};
      for (const json& range : file.at("ranges")) found.ranges.push_back(from_array(range));
      const auto size = file.at("size").get<uint64_t>();
      std::error_code error;
      const uint64_t there = fs::file_size(found.path, error);
      if (error) throw Error(fmt::format("{}: cannot read: {}", found.path.string(), error.message()));
      if (there != size)
        throw Error(fmt::format("{}: has {} bytes, but {} were written: it was {}", found.path.string(),
                                there, size, there < size ? "cut short" : "changed"));
      files.push_back(std::move(found));
    }
  } catch (const json::exception& e) {
    throw Error(fmt::format("{}: is no manifest of a checkpoint: {}", manifest.string(), e.what()));
  }
  return files;
}

// What is wrong with this rank's share of the ranges; empty: nothing.
std::string damage_in_share(const fs::path& folder, const Group& group) {
  try {
    const std::vector<FileToCheck> files = read_manifest(folder);
    std::vector<std::pair<size_t, const WrittenRange*>> own;
    int64_t number = 0;
    for (size_t f = 0; f < files.size(); ++f)
      for (const WrittenRange& range : files[f].ranges)
        if (number++ % group.size() == group.rank()) own.emplace_back(f, &range);
    std::vector<std::string> problems(own.size());
    at::parallel_for(0, static_cast<int64_t>(own.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto [f, range] = own[static_cast<size_t>(i)];
        const std::string path = files[f].path.string();
        try {
          if (ReadFile(files[f].path).checksum(range->begin, range->end) == range->checksum) continue;
          problems[static_cast<size_t>(i)] = fmt::format(
              "{}@{}: the bytes from here to {}{} are not those that rank {} wrote (their checksum differs)",
              path, range->begin, range->end,
              range->tensor.empty() ? "" : ", of tensor " + range->tensor + ",", range->rank);
        } catch (const Error& e) {
          problems[static_cast<size_t>(i)] = e.what();
        }
      }
    });
    for (const std::string& problem : problems)
      if (!problem.empty()) return problem;
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

uint64_t range_checksum(const void* data, uint64_t num_bytes) { return checksum(data, num_bytes); }

std::string to_json(const WrittenRanges& ranges) {
  json result = json::object();
  for (const auto& [file, of_file] : ranges)
    for (const WrittenRange& range : of_file) result[file].push_back(to_array(range));
  return result.dump();
}

WrittenRanges written_ranges(std::string_view text, const std::string& source) {
  WrittenRanges result;
  try {
    const json root = json::parse(text);
    for (const auto& [file, ranges] : root.items())
      for (const json& range : ranges) result[file].push_back(from_array(range));
  } catch (const std::exception& e) {
    throw Error(fmt::format("{}: is not what a rank wrote there: {}", source, e.what()));
  }
  return result;
}

void write_manifest(const fs::path& folder, WrittenRanges ranges) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().lexically_relative(folder).generic_string();
    if (entry.is_directory() || ranges.contains(name)) continue;
    const uint64_t size = entry.file_size();
    ranges[name] = {{.begin = 0, .end = size, .checksum = ReadFile(entry.path()).checksum(0, size)}};
  }
  // A line a range: a person looks for an offset here.
  std::string text =
      "{\"checksum\": \"XXH3-64\", \"range\": [\"begin\", \"end\", \"rank\", \"tensor\", \"checksum\"], "
      "\"files\": {";
  const char* between_files = "\n";
  for (auto& [name, of_file] : ranges) {
    const uint64_t size = fs::file_size(folder / name);
    check_cover((folder / name).string(), of_file, size);
    text += fmt::format("{}{}: {{\"size\": {}, \"ranges\": [", between_files, json(name).dump(), size);
    const char* between = "\n ";
    for (const WrittenRange& range : of_file) {
      text += between + to_array(range).dump();
      between = ",\n ";
    }
    text += "]}";
    between_files = ",\n";
  }
  text += "}";
  write_file(folder / kManifestFile, text + own_checksum(text));
}

void check_files(const fs::path& folder, Group& group) {
  const std::vector<std::string> found =
      gather(group, damage_in_share(folder, group), "damage of a checkpoint");
  for (size_t rank = 0; rank < found.size(); ++rank)
    if (!found[rank].empty())
      throw Error(rank == 0 ? found[rank] : fmt::format("{} (seen by rank {})", found[rank], rank));
}

}  // namespace blt
