#include "blt/data/entropy_model_source.h"

#include <gtest/gtest.h>

#include "blt/model/linear.h"
#include "fakes.h"
#include "message.h"

namespace blt {
namespace {

EntropyModel small_model() {
  EntropyModelConfig config;
  config.dim = 32;
  config.layers = 2;
  config.heads = 2;
  config.window = 16;
  EntropyModel model(config);
  freeze(*model);
  return model;
}

std::vector<std::vector<int32_t>> some_ids(int count, size_t longest) {
  std::vector<std::vector<int32_t>> result;
  for (const Sequence& sequence : random_sequences(count, 9, longest)) result.push_back(sequence.ids(true));
  return result;
}

void expect_equal(const SequenceScores& a, const SequenceScores& b, size_t i) {
  EXPECT_EQ(a.entropies, b.entropies) << "sequence " << i;
  EXPECT_EQ(a.nll, b.nll) << "sequence " << i;
}

TEST(EntropyModelSource, ScoresDoNotDependOnBatchingBitForBit) {
  const EntropyModel model = small_model();
  const auto ids = some_ids(30, 100);
  for (const bool reset : {false, true}) {
    EntropyModelSource together(model, {.reset_at_newline = reset, .batch_bytes = 1 << 20});
    const auto expected = together.scores(ids);
    ASSERT_EQ(expected.size(), ids.size());
    for (const int64_t batch_bytes : {1, 150, 700}) {
      EntropyModelSource source(model, {.reset_at_newline = reset, .batch_bytes = batch_bytes});
      const auto scores = source.scores(ids);
      for (size_t i = 0; i < ids.size(); ++i) expect_equal(scores[i], expected[i], i);
    }
    for (size_t i = 0; i < ids.size(); ++i)
      expect_equal(together.scores(std::span(ids).subspan(i, 1))[0], expected[i], i);
  }
}

TEST(EntropyModelSource, ScoresHaveTheSizeOfTheirSequence) {
  EntropyModelSource source(small_model(), {});
  const auto ids = some_ids(10, 50);
  const auto scores = source.scores(ids);
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(scores[i].entropies.size(), ids[i].size());
    EXPECT_EQ(scores[i].nll.size(), ids[i].size());
    EXPECT_EQ(scores[i].nll.back(), 0.f) << "what follows the last id is not known";
    for (const float entropy : scores[i].entropies) EXPECT_GT(entropy, 0.f);
    for (size_t t = 0; t + 1 < ids[i].size(); ++t) EXPECT_GT(scores[i].nll[t], 0.f);
  }
  EXPECT_TRUE(source.scores({}).empty());
}

TEST(EntropyModelSource, TheContextRestartsAfterEachNewline) {
  const EntropyModel model = small_model();
  constexpr int32_t kNewline = '\n' + kByteOffset;
  std::vector<int32_t> ids{kBos, 50, 51, 52, kNewline, 60, 61, kNewline, kNewline, 70, 71, 72};
  EntropyModelSource plain(model, {}), reset(model, {.reset_at_newline = true});
  const auto of = [](EntropyModelSource& source, const std::vector<int32_t>& sequence) {
    return source.scores(std::span(&sequence, 1))[0].entropies;
  };
  const auto whole = of(reset, ids);
  // The entropy at a newline belongs to the line it ends; after it, the model sees the line alone.
  std::vector<float> expected;
  for (const std::vector<int32_t>& line : std::vector<std::vector<int32_t>>{
           {kBos, 50, 51, 52, kNewline}, {60, 61, kNewline}, {kNewline}, {70, 71, 72}}) {
    const auto entropies = of(plain, line);
    expected.insert(expected.end(), entropies.begin(), entropies.end());
  }
  EXPECT_EQ(whole, expected);
  EXPECT_NE(whole, of(plain, ids));
  ids.push_back(kNewline);  // at the very end nothing restarts
  EXPECT_EQ(of(reset, ids).size(), ids.size());
}

TEST(EntropyModelSource, RefusesAModelInTraining) {
  EntropyModelConfig config;
  config.dim = 32;
  config.layers = 1;
  config.heads = 2;
  EXPECT_MESSAGE(EntropyModelSource(EntropyModel(config), {}), "is not frozen");
}

}  // namespace
}  // namespace blt
