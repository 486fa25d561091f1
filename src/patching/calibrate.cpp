#include "blt/patching/calibrate.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

#include "blt/batch.h"

namespace blt {
namespace {

constexpr double kTolerance = 0.05;  // a small sample has few patches, so its mean moves in steps

// The values that the threshold is compared with somewhere in the sample, sorted, each once.
std::vector<float> compared_values(const EntropyPatching& rule, std::span<const CalibrationSequence> sample) {
  std::vector<float> values;
  for (const CalibrationSequence& sequence : sample) {
    const auto e = sequence.entropies;
    for (size_t i = 1; i < e.size(); ++i) {
      const float value = rule.monotonic ? e[i] - e[i - 1] : e[i];
      if (!std::isnan(value)) values.push_back(value);
    }
  }
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values;
}

// A float in [low, high): whatever is above `low` in the sample is above it too.
float between_values(float low, float high) {
  const float middle = low + (high - low) / 2;
  return std::isfinite(middle) && middle >= low && middle < high ? middle : low;
}

}  // namespace

void PatchCount::add(std::span<const int32_t> ids, std::span<const int64_t> starts) {
  bytes += std::count_if(ids.begin(), ids.end(), [](int32_t id) { return id >= kByteOffset; });
  const bool next_starts = starts.back() == static_cast<int64_t>(ids.size());
  patches += static_cast<int64_t>(starts.size()) - 1 - (next_starts ? 1 : 0);
}

PatchCount count_patches(const Patcher& patcher, std::span<const CalibrationSequence> sample) {
  PatchCount count;
  for (const CalibrationSequence& sequence : sample)
    count.add(sequence.ids, patcher.starts(sequence.ids, sequence.entropies));
  return count;
}

StartsMoved starts_moved(const Patcher& patcher, std::span<const CalibrationSequence> entropies,
                         std::span<const CalibrationSequence> others) {
  TORCH_CHECK(entropies.size() == others.size(), "starts_moved: ", entropies.size(), " sequences and ",
              others.size());
  StartsMoved moved;
  const auto only_in_first = [](const std::vector<int64_t>& first, const std::vector<int64_t>& second) {
    std::vector<int64_t> rest;
    std::ranges::set_difference(first, second, std::back_inserter(rest));
    return static_cast<int64_t>(rest.size());
  };
  for (size_t i = 0; i < entropies.size(); ++i) {
    const std::vector<int64_t> here = patcher.starts(entropies[i].ids, entropies[i].entropies);
    const std::vector<int64_t> there = patcher.starts(others[i].ids, others[i].entropies);
    moved.starts += static_cast<int64_t>(here.size());
    moved.added += only_in_first(here, there);
    moved.missing += only_in_first(there, here);
  }
  return moved;
}

Calibration calibrate(const PatchingConfig& config, std::span<const CalibrationSequence> sample,
                      double mean_patch_bytes) {
  TORCH_CHECK(std::holds_alternative<EntropyPatching>(config.rule),
              "calibrate: only entropy patching has a threshold");
  const std::vector<float> values = compared_values(std::get<EntropyPatching>(config.rule), sample);
  if (values.empty())
    throw Error("there is no text to calibrate the patching threshold on: name data with more of it");

  // Candidate c lets exactly the values from c on start patches; candidate values.size() none.
  const auto threshold_of = [&](size_t c) {
    if (c == 0) return std::nextafter(values.front(), -std::numeric_limits<float>::infinity());
    return c == values.size() ? values.back() : between_values(values[c - 1], values[c]);
  };
  const auto result_of = [&](size_t c) {
    const float threshold = threshold_of(c);
    PatchingConfig candidate = config;
    std::get<EntropyPatching>(candidate.rule).threshold = threshold;
    const PatchCount count = count_patches(*make_patcher(candidate), sample);
    return Calibration{.threshold = threshold, .mean_patch_bytes = count.mean_patch_bytes(), .count = count};
  };

  // The first candidate whose patches are at least as long as wanted, and the one before it, surround the
  // wanted length.
  size_t low = 0, high = values.size();
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (result_of(middle).mean_patch_bytes < mean_patch_bytes)
      low = middle + 1;
    else
      high = middle;
  }
  Calibration best = result_of(low);
  if (low > 0) {
    const Calibration shorter = result_of(low - 1);
    if (std::abs(shorter.mean_patch_bytes - mean_patch_bytes) <
        std::abs(best.mean_patch_bytes - mean_patch_bytes))
      best = shorter;
  }
  if (!(std::abs(best.mean_patch_bytes - mean_patch_bytes) <= kTolerance * mean_patch_bytes))
    throw Error(fmt::format(
        "no threshold gives patches of {} bytes on average: the nearest is {:.3f} bytes, at {:.6f}; "
        "change mean_patch_bytes or max_patch_length, or calibrate on more text",
        mean_patch_bytes, best.mean_patch_bytes, best.threshold));
  return best;
}

}  // namespace blt
