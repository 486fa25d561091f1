#include "blt/data/metrics.h"

#include <algorithm>

namespace blt {

LoaderMetrics::LoaderMetrics(const std::vector<SourceConfig>& configs) {
  for (size_t i = 0; i < configs.size(); ++i) sources.emplace_back().name = "source" + std::to_string(i);
}

int64_t LoaderMetrics::since_last(const std::string& name, int64_t value) {
  auto last =
      std::find_if(last_.begin(), last_.end(), [&](const auto& entry) { return entry.first == name; });
  if (last == last_.end()) last = last_.insert(last_.end(), {name, 0});
  return value - std::exchange(last->second, value);
}

std::vector<std::pair<std::string, double>> LoaderMetrics::take() {
  std::vector<std::pair<std::string, double>> result;
  const auto share = [&](const std::string& name, int64_t part, int64_t whole) {
    if (whole > 0) result.emplace_back(name, static_cast<double>(part) / static_cast<double>(whole));
  };
  const auto rate = [&](const std::string& name, const Work& work) {
    const int64_t bytes = since_last(name, work.bytes), time = since_last(name + ".time", work.nanoseconds);
    if (bytes > 0 && time > 0)
      result.emplace_back(name, 1e9 * static_cast<double>(bytes) / static_cast<double>(time));
  };
  const auto mean = [&](const std::string& name, const Depth& depth) {
    const int64_t sum = since_last(name, depth.sum);
    share(name, sum, since_last(name + ".looks", depth.looks));
  };
  result.emplace_back("wait_s", 1e-9 * static_cast<double>(since_last("wait", waited_nanoseconds)));
  rate("read_bytes_per_s", read);
  rate("entropy_bytes_per_s", entropy);
  rate("patch_bytes_per_s", patch);
  rate("pack_bytes_per_s", pack);
  const int64_t hits = since_last("hits", cache_hits), misses = since_last("misses", cache_misses);
  share("cache_hits", hits, hits + misses);
  const int64_t bytes = since_last("bytes", patched_bytes);
  share("mean_patch_bytes", bytes, since_last("patches", patches));
  const int64_t unused = since_last("unused", unused_millionths);
  share("unused_budget", unused, 1000000 * since_last("batches", batches));
  mean("blocks_ready", blocks_ready);
  mean("batches_ready", batches_ready);
  for (const Source& source : sources) {
    result.emplace_back(source.name + "_documents", static_cast<double>(source.documents));
    result.emplace_back(source.name + "_epochs", static_cast<double>(source.epochs));
    result.emplace_back(source.name + "_skipped", static_cast<double>(source.skipped));
  }
  return result;
}

}  // namespace blt
