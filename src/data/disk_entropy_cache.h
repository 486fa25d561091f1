// The entropy cache in a folder (docs/formats.md, "The entropy cache").
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "blt/data/entropy_cache.h"
#include "data/cache_shard.h"

namespace blt {

struct HashOfKey {
  size_t operator()(const EntropyKey& key) const { return key.words[0]; }  // the words are a hash already
};

// Every process appends to files of its own, so no process waits for another; now and then each looks what the others have added.
class DiskEntropyCache : public EntropyCache {
 public:
  DiskEntropyCache(std::filesystem::path folder, std::optional<int64_t> max_bytes);
  ~DiskEntropyCache() override;

  std::optional<std::vector<float>> find(const EntropyKey& key, size_t count) override;
  void add(const EntropyKey& key, std::span<const float> entropies) override;

 private:
  using Clock = std::chrono::steady_clock;
  struct Place {
    const CacheShard* shard;
    uint64_t offset;
  };

  std::optional<Place> place_of(const EntropyKey& key) const;
  void forget(const EntropyKey& key, const Place& place);
  void look_around();  // for what other processes have added
  void stop_writing(const std::string& why);

  const std::filesystem::path folder_;
  const std::optional<uint64_t> max_bytes_;

  mutable std::shared_mutex index_mutex_;  // guards index_
  std::unordered_map<EntropyKey, Place, HashOfKey> index_;

  std::mutex others_mutex_;  // guards what follows
  std::vector<std::unique_ptr<CacheShard>> others_;
  std::set<std::filesystem::path> known_;  // files: others_ and own_
  Clock::time_point looked_;

  std::mutex own_mutex_;                          // guards what follows; taken before others_mutex_
  std::vector<std::unique_ptr<CacheShard>> own_;  // the last one grows
  bool writing_ = true;
};

}  // namespace blt
