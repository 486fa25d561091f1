#include "blt/patching/calibrate.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "blt/base/error.h"
#include "blt/base/rng.h"
#include "blt/batch.h"
#include "blt/patching/patcher.h"

namespace blt {
namespace {

struct Text {
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<float>> entropies;

  Text(int64_t sequences, int64_t bytes) {
    Rng rng(7, "calibration");
    for (int64_t s = 0; s < sequences; ++s) {
      ids.push_back({kBos});
      entropies.push_back({5.f});
      for (int64_t i = 0; i < bytes; ++i) {
        ids.back().push_back(static_cast<int32_t>(4 + rng.below(256)));
        entropies.back().push_back(static_cast<float>(-std::log(1 - rng.uniform())));
      }
      ids.back().push_back(kEos);
      entropies.back().push_back(5.f);
    }
  }
  std::vector<CalibrationSequence> sample() const {
    std::vector<CalibrationSequence> result;
    for (size_t s = 0; s < ids.size(); ++s) result.push_back({ids[s], entropies[s]});
    return result;
  }
  PatchCount count(const PatchingConfig& config) const {
    PatchCount result;
    const auto patcher = make_patcher(config);
    for (size_t s = 0; s < ids.size(); ++s) result.add(ids[s], patcher->starts(ids[s], entropies[s]));
    return result;
  }
};

PatchingConfig with_threshold(PatchingConfig config, double threshold) {
  std::get<EntropyPatching>(config.rule).threshold = threshold;
  return config;
}

TEST(PatchCount, CountsTextBytesAndNoBosPatch) {
  PatchCount count;
  count.add(std::vector<int32_t>{kBos, 50, 51, 52, kEos},
            std::vector<int64_t>{0, 1, 3, 5});  // 5: the next id's
  EXPECT_EQ(count.bytes, 3);
  EXPECT_EQ(count.patches, 2);
  count.add(std::vector<int32_t>{kBos, 50, 51, 52}, std::vector<int64_t>{0, 1});
  EXPECT_EQ(count.bytes, 6);
  EXPECT_EQ(count.patches, 3);
  EXPECT_DOUBLE_EQ(count.mean_patch_bytes(), 2.0);
}

TEST(Calibrate, EveryRuleReachesItsMeanAndReportsIt) {
  const Text text(20, 500);
  EntropyPatching plain, add, monotonic;
  add.threshold_add = 0.1;
  monotonic.monotonic = true;
  for (const auto& rule : {plain, add, monotonic})
    for (const std::optional<int64_t> longest : {std::optional<int64_t>(), std::optional<int64_t>(12)}) {
      const PatchingConfig config{rule, longest};
      const double wanted = 4.5;
      const Calibration result = calibrate(config, text.sample(), wanted);
      EXPECT_NEAR(result.mean_patch_bytes, wanted, 0.01);
      const PatchCount count = text.count(with_threshold(config, result.threshold));
      EXPECT_EQ(count.bytes, result.count.bytes);
      EXPECT_EQ(count.patches, result.count.patches);
      EXPECT_DOUBLE_EQ(count.mean_patch_bytes(), result.mean_patch_bytes);
    }
}

TEST(Calibrate, NoThresholdIsNearer) {
  const Text text(1, 60);
  const PatchingConfig config{EntropyPatching{}, {}};
  const double wanted = 3.0;
  const Calibration best = calibrate(config, text.sample(), wanted);
  for (const float value : text.entropies[0])
    for (const float threshold : {value, std::nextafter(value, -1.f)})
      EXPECT_GE(std::abs(text.count(with_threshold(config, threshold)).mean_patch_bytes() - wanted),
                std::abs(best.mean_patch_bytes - wanted));
}

TEST(Calibrate, TheThresholdKeepsAwayFromTheValuesItSeparates) {
  const std::vector<int32_t> ids{kBos, 50, 51, 52, 53, 54, 55};
  const std::vector<float> entropies{9, 1, 2, 1, 2, 1, 1};
  const CalibrationSequence sequence{ids, entropies};
  const Calibration result = calibrate({EntropyPatching{}, {}}, std::span(&sequence, 1), 2.0);
  EXPECT_DOUBLE_EQ(result.threshold, 1.5);
  EXPECT_DOUBLE_EQ(result.mean_patch_bytes, 2.0);
}

TEST(Calibrate, AnUnreachableMeanNamesTheNearest) {
  const Text text(5, 100);
  try {
    calibrate({EntropyPatching{}, 4}, text.sample(), 6.0);
    FAIL() << "no error";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("6 bytes on average"), std::string::npos) << message;
    EXPECT_NE(message.find("the nearest is 3.8"), std::string::npos)
        << message;  // 100 bytes and EOS in 26 patches
  }
}

TEST(Calibrate, RefusesNothingAndOtherRules) {
  EXPECT_THROW(calibrate({EntropyPatching{}, {}}, {}, 4.5), Error);
  const Text text(1, 10);
  EXPECT_THROW(calibrate({SpacePatching{}, {}}, text.sample(), 4.5), c10::Error);
}

TEST(StartsMoved, CountsWhatStartsInOneAloneAndWhatIsMissing) {
  const std::vector<int32_t> ids{kBos, 10, 11, 12, 13, 14};
  // A patch starts behind an id whose entropy exceeds the threshold.
  const std::vector<float> entropies{5, 0, 2, 0, 2, 0}, others{5, 0, 2, 2, 0, 0};
  const std::vector<CalibrationSequence> here{{ids, entropies}, {ids, others}},
      there{{ids, others}, {ids, others}};
  EntropyPatching rule;
  rule.threshold = 1.0;
  const auto patcher = make_patcher({rule, {}});
  const StartsMoved moved = starts_moved(*patcher, here, there);
  EXPECT_EQ(moved.starts, static_cast<int64_t>(patcher->starts(ids, entropies).size() +
                                               patcher->starts(ids, others).size()));
  EXPECT_EQ(moved.added, 1);
  EXPECT_EQ(moved.missing, 1);
  EXPECT_EQ(starts_moved(*patcher, here, here).added, 0);
}

}  // namespace
}  // namespace blt
