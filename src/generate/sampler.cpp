#include "blt/generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "blt/base/error.h"

namespace blt {

void SamplerConfig::validate(Errors& errors) const {
  if (!greedy) return;
  const auto exclude = [&](const char* key, bool given) {
    if (given) errors.add(key, "has no effect with greedy; leave one of the two away");
  };
  exclude("temperature", temperature.has_value());
  exclude("top_k", top_k.has_value());
  exclude("top_p", top_p.has_value());
  exclude("min_p", min_p.has_value());
}

Sampler::Sampler(const SamplerConfig& config, uint64_t stream)
    : config_(config), rng_(static_cast<uint64_t>(config.seed), "sampler " + std::to_string(stream)) {}

std::vector<std::pair<int32_t, double>> Sampler::candidates(std::span<const float> logits) const {
  int32_t best = -1;
  float largest = -std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity())
      throw Error(
          "the model's logits are not finite, so no byte can be chosen: its weights are damaged, or its "
          "training went wrong");
    if (logits[i] > largest) {
      largest = logits[i];
      best = static_cast<int32_t>(i);
    }
  }
  if (best < 0) throw Error("the model rules every byte out, so none can be chosen");
  if (config_.greedy) return {{best, 1.0}};

  const double temperature = config_.temperature.value_or(1.0);
  std::vector<std::pair<int32_t, double>> list;
  for (size_t i = 0; i < logits.size(); ++i)
    list.emplace_back(
        static_cast<int32_t>(i),
        std::exp((static_cast<double>(logits[i]) - static_cast<double>(largest)) / temperature));
  // By the logits: weights of different logits may round to the same number.
  std::stable_sort(list.begin(), list.end(),
                   [&](const auto& a, const auto& b) { return logits[a.first] > logits[b.first]; });
  if (config_.top_k && static_cast<size_t>(*config_.top_k) < list.size())
    list.resize(static_cast<size_t>(*config_.top_k));
  if (config_.top_p) {
    double all = 0, reached = 0;
    for (const auto& [id, weight] : list) all += weight;
    size_t count = 0;
    while (count < list.size() && (count == 0 || reached < *config_.top_p * all))
      reached += list[count++].second;
    list.resize(count);
  }
  if (config_.min_p)
    while (list.size() > 1 && list.back().second < *config_.min_p) list.pop_back();
  return list;
}

int32_t Sampler::operator()(std::span<const float> logits) {
  const auto list = candidates(logits);
  if (list.size() == 1) return list.front().first;
  double all = 0;
  for (const auto& [id, weight] : list) all += weight;
  double left = rng_.uniform() * all;
  for (const auto& [id, weight] : list) {
    if (left < weight) return id;
    left -= weight;
  }
  return list.front().first;  // rounding ate the last weight
}

}  // namespace blt
