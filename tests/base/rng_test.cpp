#include "blt/base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <string>
#include <vector>

namespace blt_test {

namespace {

using blt::Rng;

std::vector<uint64_t> draw(Rng rng, int count) {
  std::vector<uint64_t> draws;
  for (int i = 0; i < count; ++i) draws.push_back(rng.next());
  return draws;
}

// The numbers of xoshiro256plusplus.c (https://prng.di.unimi.it) from this state.
TEST(Rng, IsXoshiro256PlusPlus) {
  EXPECT_EQ(draw(Rng(Rng::State{1, 2, 3, 4}), 6),
            (std::vector<uint64_t>{41943041, 58720359, 3588806011781223, 3591011842654386,
                                   9228616714210784205u, 9973669472204895162u}));
}

// Computed apart, in Python integers, from the published definitions of splitmix64, FNV-1a and xoshiro256++.
TEST(Rng, SeedAndNameGiveTheSameStreamEverywhere) {
  EXPECT_EQ(draw(Rng(0, "shuffle"), 3),
            (std::vector<uint64_t>{23656776500386431u, 425748358312647440u, 8369448284522645920u}));
  EXPECT_EQ(draw(Rng(1, "shuffle"), 3),
            (std::vector<uint64_t>{7435716733599226122u, 3557826969843246521u, 3264005792058701821u}));
  EXPECT_EQ(draw(Rng(0, "dropout"), 3),
            (std::vector<uint64_t>{10552257620579550295u, 8031300294052043725u, 9462077972440840383u}));
  std::vector<int> order(10);
  std::iota(order.begin(), order.end(), 0);
  Rng(7, "order").shuffle(order);
  EXPECT_EQ(order, (std::vector<int>{2, 4, 8, 1, 6, 9, 7, 0, 3, 5}));
}

TEST(Rng, AStoredStateGoesOnWhereItWas) {
  Rng rng(3, "data");
  for (int i = 0; i < 100; ++i) rng.below(7);
  const Rng::State state = rng.state();
  const auto expected = draw(rng, 50);
  EXPECT_EQ(draw(Rng(state), 50), expected);
}

TEST(Rng, BelowIsUniform) {  // chi-square with 9 degrees of freedom: above 33.7 once in ten thousand seeds
  Rng rng(11, "uniform");
  constexpr int kDraws = 100000;
  std::array<int, 10> counts = {};
  for (int i = 0; i < kDraws; ++i) ++counts[rng.below(10)];
  double chi_square = 0;
  for (const int count : counts) chi_square += std::pow(count - kDraws / 10.0, 2) / (kDraws / 10.0);
  EXPECT_LT(chi_square, 33.7);
  EXPECT_EQ(rng.below(1), 0u);
}

// Where n is 3 * 2^62, a draw mod n would fall into the first third twice as often as into the others.
TEST(Rng, BelowHasNoBiasForHugeBounds) {
  Rng rng(5, "huge");
  constexpr uint64_t kThird = uint64_t{1} << 62;
  int first = 0;
  constexpr int kDraws = 30000;
  for (int i = 0; i < kDraws; ++i) first += rng.below(3 * kThird) < kThird;
  EXPECT_NEAR(first, kDraws / 3, 5 * std::sqrt(kDraws * 2.0 / 9.0));
}

TEST(Rng, UniformStaysInItsRangeWithTheRightMean) {
  Rng rng(2, "mean");
  double sum = 0;
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) {
    const double x = rng.uniform();
    ASSERT_GE(x, 0.0);
    ASSERT_LT(x, 1.0);
    sum += x;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 5 / std::sqrt(12.0 * kDraws));
}

TEST(Rng, ShuffleReachesEveryPermutationAlike) {
  Rng rng(9, "permutations");
  std::map<std::string, int> counts;
  constexpr int kDraws = 24000;
  for (int i = 0; i < kDraws; ++i) {
    std::string letters = "abcd";
    rng.shuffle(letters);
    ++counts[letters];
  }
  ASSERT_EQ(counts.size(), 24u);
  for (const auto& [letters, count] : counts)
    EXPECT_NEAR(count, kDraws / 24, 5 * std::sqrt(kDraws / 24.0)) << letters;
}

}  // namespace

}  // namespace blt_test
