#include "blt/generate/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "blt/base/error.h"
#include "message.h"

namespace blt {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> random_logits(std::mt19937_64& rng, size_t count) {
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(count);
  for (float& x : logits) x = rng() % 4 == 0 ? std::round(normal(rng)) : normal(rng);  // some are equal
  return logits;
}

// Straight from the words of the header: a probability for every id, left out one rule after the other.
std::map<int32_t, double> naive(const SamplerConfig& config, const std::vector<float>& logits) {
  std::map<int32_t, double> p;
  for (size_t i = 0; i < logits.size(); ++i)
    p[static_cast<int32_t>(i)] = std::exp(static_cast<double>(logits[i]) / config.temperature.value_or(1));
  const auto normalise = [&] {
    double sum = 0;
    for (const auto& [id, x] : p) sum += x;
    for (auto& [id, x] : p) x /= sum;
  };
  const auto likelier = [&](int32_t a, int32_t b) {  // than b
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  };
  const auto rank = [&](int32_t id) {
    return std::count_if(p.begin(), p.end(), [&](const auto& other) { return likelier(other.first, id); });
  };
  const auto leave_out = [&](const auto& bad) {
    std::set<int32_t> out;
    for (const auto& [id, x] : p)
      if (rank(id) > 0 && bad(id, x)) out.insert(id);
    for (const int32_t id : out) p.erase(id);
    normalise();
  };
  normalise();
  if (config.top_k) leave_out([&](int32_t id, double) { return rank(id) >= *config.top_k; });
  if (config.top_p)
    leave_out([&](int32_t id, double) {
      double before = 0;  // of likelier ids: enough without this one?
      for (const auto& [other, x] : p)
        if (likelier(other, id)) before += x;
      return before >= *config.top_p - 1e-12;
    });
  if (config.min_p) {
    double largest = 0;
    for (const auto& [id, x] : p) largest = std::max(largest, x);
    leave_out([&](int32_t, double x) { return x < *config.min_p * largest; });
  }
  return p;
}

TEST(Sampler, LeavesOutWhatTheNaiveReferenceLeavesOut) {
  std::mt19937_64 rng(1);
  for (int round = 0; round < 300; ++round) {
    const std::vector<float> logits = random_logits(rng, 1 + rng() % 40);
    SamplerConfig config;
    const auto unit = [&] { return static_cast<double>(rng() % 1000) / 999; };
    if (rng() % 2 == 0) config.temperature = 0.2 + 2 * unit();
    if (rng() % 2 == 0) config.top_k = 1 + static_cast<int64_t>(rng() % 45);
    if (rng() % 2 == 0) config.top_p = unit();
    if (rng() % 2 == 0) config.min_p = unit();
    const auto expected = naive(config, logits);
    const auto actual = Sampler(config).candidates(logits);
    ASSERT_EQ(actual.size(), expected.size()) << "round " << round;
    double sum = 0;
    for (const auto& [id, weight] : actual) sum += weight;
    for (const auto& [id, weight] : actual) {
      ASSERT_TRUE(expected.contains(id)) << "round " << round << ", id " << id;
      EXPECT_NEAR(weight / sum, expected.at(id), 1e-9) << "round " << round << ", id " << id;
    }
    EXPECT_EQ(actual.front().second, 1);
  }
}

TEST(Sampler, ChoosesAsOftenAsIdsAreLikely) {
  SamplerConfig config;
  config.temperature = 0.8;
  config.top_k = 4;
  const std::vector<float> logits = {0.f, 1.f, 2.f, -1.f, 1.5f, -kInfinity};
  const auto expected = naive(config, logits);
  Sampler sampler(config);
  std::map<int32_t, int> counts;
  constexpr int kDraws = 40000;
  for (int i = 0; i < kDraws; ++i) ++counts[sampler(logits)];
  EXPECT_EQ(counts.size(), expected.size());
  for (const auto& [id, p] : expected)  // 5 standard deviations
    EXPECT_NEAR(counts[id], p * kDraws, 5 * std::sqrt(p * (1 - p) * kDraws)) << "id " << id;
}

TEST(Sampler, EqualSeedsChooseAlikeAndOthersDoNot) {
  std::mt19937_64 rng(2);
  const auto draw = [](int64_t seed, uint64_t stream, const std::vector<float>& logits) {
    SamplerConfig config;
    config.seed = seed;
    Sampler sampler(config, stream);
    std::vector<int32_t> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(sampler(logits));
    return ids;
  };
  const std::vector<float> logits = random_logits(rng, 260);
  EXPECT_EQ(draw(7, 0, logits), draw(7, 0, logits));
  EXPECT_NE(draw(7, 0, logits), draw(8, 0, logits));
  EXPECT_NE(draw(7, 0, logits), draw(7, 1, logits));
}

TEST(Sampler, GreedyTakesTheSmallestOfTheLikeliest) {
  SamplerConfig config;
  config.greedy = true;
  Sampler sampler(config);
  EXPECT_EQ(sampler(std::vector<float>{1, 3, 3, 2}), 1);
  EXPECT_EQ(sampler(std::vector<float>{-kInfinity, -5}), 1);
  SamplerConfig cold;
  cold.temperature = 1e-300;  // as greedy, without a division by zero
  EXPECT_EQ(Sampler(cold)(std::vector<float>{1, 3, 2}), 1);
}

TEST(Sampler, RefusesLogitsThatAreNoNumbers) {
  Sampler sampler{SamplerConfig()};
  EXPECT_MESSAGE(sampler(std::vector<float>{0, std::nanf("")}), "the model's logits are not finite");
  EXPECT_MESSAGE(sampler(std::vector<float>{0, kInfinity}), "the model's logits are not finite");
  EXPECT_MESSAGE(sampler(std::vector<float>{-kInfinity, -kInfinity}), "rules every byte out");
}

}  // namespace
}  // namespace blt
