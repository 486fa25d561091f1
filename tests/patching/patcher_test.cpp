// Laws that hold for every patcher, on random ids and entropies with ties and extremes.
#include "blt/patching/patcher.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "blt/base/error.h"
#include "blt/base/rng.h"
#include "blt/batch.h"

namespace blt {
namespace {

struct Sample {
  std::vector<int32_t> ids;
  std::vector<float> entropies;
};

// Entropies on a coarse grid, so that ties with each other and with thresholds are common; now and then an
// extreme.
Sample random_sample(Rng& rng, int64_t size) {
  static constexpr float kExtremes[] = {0.f, -0.f, 1e-45f, 5.5606816f, std::numeric_limits<float>::max()};
  Sample sample;
  for (int64_t i = 0; i < size; ++i) {
    sample.ids.push_back(rng.below(8) == 0    ? ' ' + kByteOffset
                         : rng.below(30) == 0 ? kEos
                                              : static_cast<int32_t>(4 + rng.below(256)));
    sample.entropies.push_back(rng.below(10) == 0 ? kExtremes[rng.below(5)]
                                                  : 0.25f * static_cast<float>(rng.below(20)));
  }
  sample.ids[0] = kBos;
  if (size > 1 && rng.below(2) == 0) sample.ids.back() = kEos;
  return sample;
}

std::vector<std::pair<std::string, PatchingConfig>> incremental_configs() {
  EntropyPatching plain, add, monotonic;
  plain.threshold = 1.5;
  add.threshold = 1.5;
  add.threshold_add = 0.25;
  monotonic.threshold = 0.25;
  monotonic.monotonic = true;
  std::vector<std::pair<std::string, PatchingConfig>> configs = {{"static4", {StaticPatching{4}, {}}},
                                                                 {"static1", {StaticPatching{1}, {}}},
                                                                 {"byte", {BytePatching{}, {}}},
                                                                 {"space", {SpacePatching{}, {}}},
                                                                 {"plain", {plain, {}}},
                                                                 {"add", {add, {}}},
                                                                 {"monotonic", {monotonic, {}}}};
  const size_t unlimited = configs.size();
  for (size_t i = 0; i < unlimited; ++i)
    for (const int64_t longest : {1, 3, 7}) {
      auto limited = configs[i];
      limited.first += "_max" + std::to_string(longest);
      limited.second.max_patch_length = longest;
      configs.push_back(limited);
    }
  return configs;
}

std::vector<int64_t> streamed(const Patcher& patcher, const Sample& sample) {
  PatchStream stream = patcher.stream();
  std::vector<int64_t> starts{0};
  for (size_t i = 0; i < sample.ids.size(); ++i)
    if (stream.push(sample.ids[i], sample.entropies[i])) starts.push_back(static_cast<int64_t>(i) + 1);
  return starts;
}

TEST(Patcher, WholeAndIncrementalFormsAgree) {
  Rng rng(1, "whole");
  for (const auto& [name, config] : incremental_configs()) {
    const auto patcher = make_patcher(config);
    for (int trial = 0; trial < 50; ++trial) {
      const Sample sample =
          random_sample(rng, 1 + static_cast<int64_t>(rng.below(rng.below(2) == 0 ? 60 : 400)));
      EXPECT_EQ(patcher->starts(sample.ids, sample.entropies), streamed(*patcher, sample)) << name;
    }
  }
}

TEST(Patcher, AreStableUnderPrefixes) {
  Rng rng(2, "prefix");
  for (const auto& [name, config] : incremental_configs()) {
    const auto patcher = make_patcher(config);
    const Sample sample = random_sample(rng, 40);
    const auto whole = patcher->starts(sample.ids, sample.entropies);
    for (size_t size = 1; size <= sample.ids.size(); ++size) {
      auto expected = whole;
      while (expected.back() > static_cast<int64_t>(size)) expected.pop_back();
      EXPECT_EQ(patcher->starts(std::span(sample.ids).first(size), std::span(sample.entropies).first(size)),
                expected)
          << name << ", prefix of " << size;
    }
  }
}

TEST(Patcher, StartsFollowTheRulesOfABatch) {
  Rng rng(3, "rules");
  auto configs = incremental_configs();
  configs.push_back({"top_k", {TopKPatching{3}, {}}});
  configs.push_back({"top_k_max2", {TopKPatching{3}, 2}});
  for (const auto& [name, config] : configs) {
    const auto patcher = make_patcher(config);
    for (int64_t size = 1; size < 30; ++size) {
      const Sample sample = random_sample(rng, size);
      const auto starts = patcher->starts(sample.ids, sample.entropies);
      ASSERT_GE(starts.size(), 2u) << name;
      EXPECT_EQ(starts[0], 0) << name;
      EXPECT_EQ(starts[1], 1) << name << ": the BOS is alone in its patch";
      EXPECT_TRUE(std::adjacent_find(starts.begin(), starts.end(), std::greater_equal<>()) == starts.end())
          << name;
      EXPECT_LE(starts.back(), size) << name;
      if (config.max_patch_length) {
        for (size_t p = 1; p < starts.size(); ++p)
          EXPECT_LE(starts[p] - starts[p - 1], *config.max_patch_length) << name;
        EXPECT_LT(size - starts.back(), *config.max_patch_length)
            << name << ": a full last patch is followed by another";
      }
      EXPECT_NO_THROW(Batch::pack({{sample.ids, starts, {}}})) << name;
    }
  }
}

TEST(Patcher, StaticPatchesKeepTheirPlacesAfterTheFirst) {
  const auto patcher = make_patcher({StaticPatching{4}, {}});
  const std::vector<int32_t> ids(10, 50);
  EXPECT_EQ(patcher->starts(ids), (std::vector<int64_t>{0, 1, 4, 8}));
}

// By the definition, whatever comes before: a space-like id ends a patch unless it follows another, a special one always does.
TEST(Patcher, TheSpaceRuleIsItsDefinitionForEveryPairOfIds) {
  const auto space_like = [](int32_t id) {
    const int32_t byte = id - kByteOffset;
    const bool alphanumeric =
        (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
    return byte < 0 || (byte < 0x80 && !alphanumeric) || byte >= 0xC0;
  };
  std::vector<int32_t> ids{kBos};
  for (int32_t first = 0; first < kVocabulary; ++first)
    for (int32_t second = 0; second < kVocabulary; ++second) ids.insert(ids.end(), {first, second});
  std::vector<int64_t> expected{0, 1};
  for (size_t i = 1; i < ids.size(); ++i)
    if (ids[i] < kByteOffset || (space_like(ids[i]) && !space_like(ids[i - 1])))
      expected.push_back(static_cast<int64_t>(i) + 1);
  EXPECT_EQ(make_patcher({SpacePatching{}, {}})->starts(ids), expected);
}

TEST(Patcher, MaxPatchLengthSplitsFromTheStartOfEachPatch) {
  const auto patcher = make_patcher({SpacePatching{}, 3});
  std::vector<int32_t> ids{kBos};
  for (const char c : std::string("abcdefg hi")) ids.push_back(c + kByteOffset);
  // abc | def | g_ | hi: the space ends the third piece; two bytes are not full yet.
  EXPECT_EQ(patcher->starts(ids), (std::vector<int64_t>{0, 1, 4, 7, 9}));
}

TEST(Patcher, TopKTakesTheEarlierOfEqualEntropies) {
  const auto patcher = make_patcher({TopKPatching{2}, {}});
  const std::vector<int32_t> ids{kBos, 50, 51, 52, 53, 54, 55, 56};
  const std::vector<float> entropies{9, 1, 3, 1, 3, 3, 0, 2};  // 8 / 2 - 2 = 2 of them
  EXPECT_EQ(patcher->starts(ids, entropies), (std::vector<int64_t>{0, 1, 3, 5}));
}

TEST(Patcher, TopKHasNoIncrementalForm) {
  const auto patcher = make_patcher({TopKPatching{4}, {}});
  EXPECT_THROW(patcher->stream(), Error);
}

TEST(Patcher, ConfigKnowsWhoNeedsEntropies) {
  EntropyPatching entropy;
  entropy.threshold = 1;
  EXPECT_TRUE((PatchingConfig{entropy, {}}).needs_entropies());
  EXPECT_TRUE((PatchingConfig{TopKPatching{}, {}}).needs_entropies());
  for (const PatchingConfig& config :
       {PatchingConfig{SpacePatching{}, {}}, PatchingConfig{StaticPatching{}, {}},
        PatchingConfig{BytePatching{}, {}}, PatchingConfig{entropy, {}}})
    EXPECT_EQ(make_patcher(config)->needs_entropies(), config.needs_entropies());
}

TEST(Patcher, RefusesMissingIdsAndEntropies) {
  EntropyPatching entropy;
  entropy.threshold = 1;
  const auto patcher = make_patcher({entropy, {}});
  const std::vector<int32_t> ids{kBos, 50};
  const std::vector<float> one{1.f};
  EXPECT_THROW(patcher->starts({}), c10::Error);
  EXPECT_THROW(patcher->starts(ids), c10::Error);
  EXPECT_THROW(patcher->starts(ids, one), c10::Error);
}

TEST(Patcher, AnUncalibratedRuleIsAClearError) {
  try {
    make_patcher({EntropyPatching{}, {}});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("has no threshold"), std::string::npos) << error.what();
  }
}

TEST(EntropyPatching, ValidateNamesBothContradictions) {
  EntropyPatching rule;
  Errors none;
  rule.validate(none);
  EXPECT_TRUE(none.empty());
  rule.threshold = 1;
  rule.mean_patch_bytes = 4;
  rule.monotonic = true;
  rule.threshold_add = 0.1;
  Errors errors;
  rule.validate(errors);
  ASSERT_EQ(errors.items().size(), 2u);
  EXPECT_EQ(errors.items()[0].first, "mean_patch_bytes");
  EXPECT_EQ(errors.items()[1].first, "threshold_add");
}

// As a user would write one: a class of their own, with only what is theirs.
class NewlinePatcher : public Patcher {
 public:
  bool needs_entropies() const override { return false; }
  std::unique_ptr<PatchRule> rule() const override {
    struct AfterNewline : PatchRule {
      bool next_starts(int32_t id, float) override { return id == '\n' + kByteOffset; }
    };
    return std::make_unique<AfterNewline>();
  }
};

TEST(Patcher, ACustomClassAndACustomFunctionAgree) {
  Rng rng(4, "custom");
  const NewlinePatcher a;
  const auto b = rule_patcher([](int32_t id) { return id == '\n' + kByteOffset; });
  Sample sample = random_sample(rng, 200);
  for (size_t i = 1; i < sample.ids.size(); i += 7) sample.ids[i] = '\n' + kByteOffset;
  EXPECT_EQ(a.starts(sample.ids), b->starts(sample.ids));
  EXPECT_GT(a.starts(sample.ids).size(), sample.ids.size() / 7);
}

TEST(Patcher, AFunctionWithStateStartsAnewInEverySequence) {
  const auto patcher = rule_patcher(
      [last = 0.f](int32_t, float entropy) mutable { return entropy > 2 * std::exchange(last, entropy); });
  EXPECT_TRUE(patcher->needs_entropies());
  const std::vector<int32_t> ids{kBos, 50, 51, 52, 53};
  const std::vector<float> entropies{1, 1.5, 4, 7, 15};
  const std::vector<int64_t> expected{0, 1, 3, 5};
  EXPECT_EQ(patcher->starts(ids, entropies), expected);
  EXPECT_EQ(patcher->starts(ids, entropies), expected);
}

}  // namespace
}  // namespace blt
