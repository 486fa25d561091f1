// One file of the entropy cache: records, one after the other (docs/formats.md, "The entropy cache").
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "blt/data/entropy_cache.h"

namespace blt {

// Reading is thread-safe; scan(), append() and seal() are one thread's at a time, and may run beside read().
class CacheShard {
 public:
  // A new file for this process to append to. Throws blt::Error when it cannot be made, with the reason.
  static std::unique_ptr<CacheShard> create(const std::filesystem::path& path);
  // A file to read, of this format or not; null when it cannot be opened.
  static std::unique_ptr<CacheShard> open(const std::filesystem::path& path);
  ~CacheShard();
  CacheShard(const CacheShard&) = delete;
  CacheShard& operator=(const CacheShard&) = delete;

  using Found = std::function<void(const EntropyKey& key, uint64_t offset)>;
  // Calls `found` for the records that have come since the last scan, by the index beside the file where there is one. Ends at the
  // first that is damaged or not whole (yet). The first scan writes the index of a file whose writer was killed before it did.
  void scan(const Found& found);

  // What is at `offset`; nullopt when that is no whole record of this key and count.
  std::optional<std::vector<float>> read(uint64_t offset, const EntropyKey& key, size_t count) const;

  // Returns the record's offset; nullopt when it cannot be written: then the file is as it was.
  std::optional<uint64_t> append(const EntropyKey& key, std::span<const float> entropies);
  // Writes the index of what was appended. Nothing is appended after it.
  void seal() noexcept;

  uint64_t size() const { return end_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  using Places = std::vector<std::pair<EntropyKey, uint64_t>>;  // keys and offsets

  CacheShard(std::filesystem::path path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  bool read_header();
  Places read_index();    // empty where there is none
  Places read_records();  // from end_ on
  void write_index(const Places& places) const noexcept;
  bool is_abandoned() const;
  std::filesystem::path index_path() const;

  std::filesystem::path path_;
  int descriptor_;
  uint64_t end_ = 0;  // up to where records were scanned or written; 0: not even the header
  Places written_;    // by this process
};

}  // namespace blt
