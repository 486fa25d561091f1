#include "blt/data/entropy_cache.h"

#include <c10/util/Exception.h>

#include <mutex>
#include <unordered_map>
#include <utility>

#include "data/disk_entropy_cache.h"
#include "data/hash.h"

namespace blt {
namespace {

class MemoryEntropyCache : public EntropyCache {
 public:
  explicit MemoryEntropyCache(int64_t max_bytes) : room_(max_bytes) {}

  std::optional<std::vector<float>> find(const EntropyKey& key, size_t count) override {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end() || found->second.size() != count) return std::nullopt;
    return found->second;
  }
  void add(const EntropyKey& key, std::span<const float> entropies) override {
    constexpr int64_t kEntryBytes = 96;  // of a map's node, roughly
    const auto size = static_cast<int64_t>(entropies.size_bytes()) + kEntryBytes;
    const std::lock_guard lock(mutex_);
    if (size > room_) return;
    if (entries_.try_emplace(key, entropies.begin(), entropies.end()).second) room_ -= size;
  }

 private:
  std::mutex mutex_;
  int64_t room_;  // bytes
  std::unordered_map<EntropyKey, std::vector<float>, HashOfKey> entries_;
};

}  // namespace

EntropyKey EntropyKey::of(std::string_view identity, std::span<const int32_t> ids) {
  Hash128 hash;
  hash.update(identity);
  hash.update(ids.data(), ids.size_bytes());
  return hash.digest();
}

std::shared_ptr<EntropyCache> EntropyCache::in_memory(int64_t max_bytes) {
  return std::make_shared<MemoryEntropyCache>(max_bytes);
}
std::shared_ptr<EntropyCache> EntropyCache::on_disk(const std::filesystem::path& folder,
                                                    std::optional<int64_t> max_bytes) {
  return std::make_shared<DiskEntropyCache>(folder, max_bytes);
}

CachedEntropies::CachedEntropies(std::shared_ptr<EntropySource> source, std::string identity,
                                 std::shared_ptr<EntropyCache> cache)
    : source_(std::move(source)), identity_(std::move(identity)), cache_(std::move(cache)) {
  TORCH_CHECK(source_ && cache_, "CachedEntropies: no source, or no cache");
}

std::shared_ptr<CachedEntropies> CachedEntropies::counted_in(std::shared_ptr<LoaderMetrics> metrics) const {
  auto result = std::make_shared<CachedEntropies>(source_, identity_, cache_);
  result->metrics_ = std::move(metrics);
  return result;
}

std::vector<std::vector<float>> CachedEntropies::entropies(std::span<const std::vector<int32_t>> sequences) {
  std::vector<std::vector<float>> result(sequences.size());
  std::vector<size_t> unknown;
  std::vector<EntropyKey> keys;
  std::vector<std::vector<int32_t>> ids;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const EntropyKey key = EntropyKey::of(identity_, sequences[i]);
    if (auto found = cache_->find(key, sequences[i].size())) {
      result[i] = std::move(*found);
    } else {
      unknown.push_back(i);
      keys.push_back(key);
      ids.push_back(sequences[i]);
    }
  }
  if (metrics_) {
    metrics_->cache_hits += static_cast<int64_t>(sequences.size() - unknown.size());
    metrics_->cache_misses += static_cast<int64_t>(unknown.size());
    for (const std::vector<int32_t>& sequence : ids)
      metrics_->computed_entropies += static_cast<int64_t>(sequence.size());
  }
  if (unknown.empty()) return result;
  std::vector<std::vector<float>> computed = source_->entropies(ids);
  TORCH_CHECK(computed.size() == ids.size(), "EntropySource: ", ids.size(), " sequences but ",
              computed.size(), " results");
  for (size_t u = 0; u < unknown.size(); ++u) {
    cache_->add(keys[u], computed[u]);
    result[unknown[u]] = std::move(computed[u]);
  }
  return result;
}

std::vector<SequenceScores> CachedEntropies::scores(std::span<const std::vector<int32_t>> sequences) {
  return source_->scores(sequences);
}

}  // namespace blt
