#include "data/disk_entropy_cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <system_error>
#include <utility>

#include "blt/base/error.h"
#include "blt/base/log.h"

namespace blt {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kShardBytes = uint64_t{4} << 30;  // a file that has reached this is followed by another
constexpr std::chrono::seconds kLookEvery(5);

// Sorted by the time of their making, and no other process's.
fs::path new_shard_path(const fs::path& folder) {
  static std::atomic<int> count{0};
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return folder / fmt::format("{:016x}-{}-{}.entropies",
                              std::chrono::duration_cast<std::chrono::nanoseconds>(now).count(), ::getpid(),
                              count++);
}

}  // namespace

DiskEntropyCache::DiskEntropyCache(fs::path folder, std::optional<int64_t> max_bytes)
    : folder_(std::move(folder)), max_bytes_(max_bytes ? std::optional<uint64_t>(*max_bytes) : std::nullopt) {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error)
    throw Error(
        fmt::format("{}: the folder for entropies cannot be made: {}", folder_.string(), error.message()));
  look_around();
}

DiskEntropyCache::~DiskEntropyCache() {
  if (!own_.empty()) own_.back()->seal();
}

std::optional<DiskEntropyCache::Place> DiskEntropyCache::place_of(const EntropyKey& key) const {
  const std::shared_lock lock(index_mutex_);
  const auto found = index_.find(key);
  if (found == index_.end()) return std::nullopt;
  return found->second;
}

std::optional<std::vector<float>> DiskEntropyCache::find(const EntropyKey& key, size_t count) {
  std::optional<Place> place = place_of(key);
  if (!place) {
    look_around();
    place = place_of(key);
  }
  if (!place) return std::nullopt;
  auto entropies = place->shard->read(place->offset, key, count);
  if (!entropies) forget(key, *place);
  return entropies;
}

void DiskEntropyCache::forget(const EntropyKey& key, const Place& place) {
  log_warning(fmt::format("{}@{}: a damaged entry of the entropy cache; it is computed again",
                          place.shard->path().string(), place.offset));
  const std::lock_guard lock(index_mutex_);
  const auto found = index_.find(key);
  if (found != index_.end() && found->second.shard == place.shard && found->second.offset == place.offset)
    index_.erase(found);
}

void DiskEntropyCache::look_around() {
  const std::unique_lock looking(others_mutex_, std::try_to_lock);
  if (!looking || (looked_ != Clock::time_point() && Clock::now() - looked_ < kLookEvery)) return;
  looked_ = Clock::now();
  std::set<fs::path> fresh;  // sorted: of two records for one key, the younger file's counts
  std::error_code error;
  for (fs::directory_iterator entry(folder_, error), end; !error && entry != end; entry.increment(error))
    if (entry->path().extension() == ".entropies" && !known_.contains(entry->path()))
      fresh.insert(entry->path());
  if (error)
    throw Error(
        fmt::format("{}: the folder of entropies cannot be read: {}", folder_.string(), error.message()));
  for (const fs::path& path : fresh)
    if (auto shard = CacheShard::open(path)) {
      known_.insert(path);
      others_.push_back(std::move(shard));
    }
  for (const std::unique_ptr<CacheShard>& shard : others_)
    shard->scan([&](const EntropyKey& key, uint64_t offset) {
      const std::lock_guard lock(index_mutex_);
      index_[key] = {shard.get(), offset};
    });
}

void DiskEntropyCache::add(const EntropyKey& key, std::span<const float> entropies) {
  const std::lock_guard writing(own_mutex_);
  if (!writing_ || place_of(key)) return;
  try {
    if (own_.empty() || own_.back()->size() >= kShardBytes) {
      if (!own_.empty()) own_.back()->seal();
      const std::lock_guard others(others_mutex_);
      own_.push_back(CacheShard::create(new_shard_path(folder_)));
      known_.insert(own_.back()->path());
    }
  } catch (const Error& problem) {
    return stop_writing(problem.what());
  }
  if (max_bytes_) {
    uint64_t total = 0;
    for (const auto& shard : own_) total += shard->size();
    const std::lock_guard others(others_mutex_);
    for (const auto& shard : others_) total += shard->size();
    if (total + entropies.size_bytes() > *max_bytes_)
      return stop_writing(fmt::format("{}: the entropy cache has reached its limit of {} MiB",
                                      folder_.string(), *max_bytes_ >> 20));
  }
  const std::optional<uint64_t> offset = own_.back()->append(key, entropies);
  if (!offset)
    return stop_writing(
        fmt::format("{}: cannot be written: the disk is full?", own_.back()->path().string()));
  const std::lock_guard lock(index_mutex_);
  index_[key] = {own_.back().get(), *offset};
}

void DiskEntropyCache::stop_writing(const std::string& why) {
  writing_ = false;
  log_warning(why + "; entropies that are not in it yet are computed each time");
}

}  // namespace blt
