// Entropies that were computed before: the second epoch is free, and with a folder so is the second run.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "blt/data/entropy_source.h"
#include "blt/data/metrics.h"

namespace blt {

// A sequence together with all that its entropies depend on, as a 128-bit hash (XXH3): two of 10^15 different ones are equal with a
// probability below 10^-8.
struct EntropyKey {
  std::array<uint64_t, 2> words = {};
  bool operator==(const EntropyKey&) const = default;

  // identity: of what computes them (EntropyModelSource::identity). ids: the whole sequence.
  static EntropyKey of(std::string_view identity, std::span<const int32_t> ids);
};

// Thread-safe.
class EntropyCache {
 public:
  virtual ~EntropyCache() = default;

  // The entropies of the `count` ids that `key` was made from, bit for bit as they were added; nullopt where there are none.
  virtual std::optional<std::vector<float>> find(const EntropyKey& key, size_t count) = 0;
  // Full, a cache keeps what it has.
  virtual void add(const EntropyKey& key, std::span<const float> entropies) = 0;

  // In this process's memory.
  static std::shared_ptr<EntropyCache> in_memory(int64_t max_bytes);
  // In files of a folder, which is made where there is none; any number of processes and models may share it (docs/formats.md). Costs
  // 4 bytes on the disk for a byte of text, and about 80 bytes of memory a sequence. A damaged entry counts as absent, with a warning;
  // a process that is killed loses what it was writing, and a full disk ends the writing, with a warning. max_bytes: of all files; none:
  // no limit. Throws blt::Error when the folder cannot be made or read.
  static std::shared_ptr<EntropyCache> on_disk(const std::filesystem::path& folder,
                                               std::optional<int64_t> max_bytes = {});
};

// A cache in front of what computes entropies. Thread-safe.
class CachedEntropies : public EntropySource {
 public:
  // identity: of `source`. What it finds is counted nowhere.
  CachedEntropies(std::shared_ptr<EntropySource> source, std::string identity,
                  std::shared_ptr<EntropyCache> cache);
  // The same source and cache for one that counts its hits and misses in `metrics`: the training, say, and not its validation.
  std::shared_ptr<CachedEntropies> counted_in(std::shared_ptr<LoaderMetrics> metrics) const;

  std::vector<std::vector<float>> entropies(std::span<const std::vector<int32_t>> sequences) override;
  // Always computed: the cache holds no nll.
  std::vector<SequenceScores> scores(std::span<const std::vector<int32_t>> sequences) override;

 private:
  std::shared_ptr<EntropySource> source_;
  std::string identity_;
  std::shared_ptr<EntropyCache> cache_;
  std::shared_ptr<LoaderMetrics> metrics_ = nullptr;
};

}  // namespace blt
