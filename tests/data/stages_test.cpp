// What each stage between reading and packing does.
#include <gtest/gtest.h>

#include <algorithm>

#include "blt/base/error.h"
#include "blt/data/mix.h"
#include "blt/data/patch_stage.h"
#include "blt/data/repeat.h"
#include "blt/data/shuffle.h"
#include "fakes.h"

namespace blt {
namespace {

std::vector<Sequence> equal_sequences(int count, char byte, size_t size) {
  return std::vector<Sequence>(static_cast<size_t>(count), Sequence{std::string(size, byte), true, true});
}
template <class T>
std::unique_ptr<Stage<T>> list(std::vector<T> items) {
  return std::make_unique<ListStage<T>>(std::move(items));
}

TEST(Sequence, BecomesIdsWithBosAndEosAtADocumentsEnd) {
  Sequence sequence{std::string("a\0\xff", 3), true, false};
  EXPECT_EQ(sequence.ids(true), (std::vector<int32_t>{kBos, 'a' + 4, 4, 259}));
  sequence.ends_document = true;
  EXPECT_EQ(sequence.ids(true), (std::vector<int32_t>{kBos, 'a' + 4, 4, 259, kEos}));
  EXPECT_EQ(sequence.ids(false), (std::vector<int32_t>{kBos, 'a' + 4, 4, 259}));
}

TEST(Mix, SharesHoldAtEveryMoment) {
  std::vector<Mix::Input> inputs;
  inputs.push_back({list(equal_sequences(1000, 'a', 10)), 3.0});
  inputs.push_back({list(equal_sequences(1000, 'b', 25)), 1.0});
  Mix mix(std::move(inputs));
  double a = 0, b = 0;
  for (int i = 0; i < 1000; ++i) {
    const Sequence sequence = *mix.next();
    (sequence.bytes[0] == 'a' ? a : b) += static_cast<double>(sequence.bytes.size());
    EXPECT_LE(std::abs(a / 3.0 - b), 25.0);
  }
  EXPECT_NEAR(a / b, 3.0, 0.05);
}

TEST(Mix, EndsWithTheSourceThatEnds) {
  std::vector<Mix::Input> inputs;
  inputs.push_back({list(equal_sequences(2, 'a', 10)), 1.0});
  inputs.push_back({list(equal_sequences(100, 'b', 10)), 1.0});
  Mix mix(std::move(inputs));
  EXPECT_EQ(take(mix).size(), 4u);
  EXPECT_FALSE(mix.next());
}

TEST(Concatenate, GivesOneAfterTheOther) {
  std::vector<std::unique_ptr<Stage<Sequence>>> inputs;
  inputs.push_back(list(equal_sequences(2, 'a', 1)));
  inputs.push_back(list(equal_sequences(0, 'b', 1)));
  inputs.push_back(list(equal_sequences(1, 'c', 1)));
  Concatenate stage(std::move(inputs));
  EXPECT_EQ(texts_of(take(stage)), (std::vector<std::string>{"[a]", "[a]", "[c]"}));
}

TEST(Shuffle, PermutesWithinBlocks) {
  std::vector<int> items(100);
  for (int i = 0; i < 100; ++i) items[static_cast<size_t>(i)] = i;
  const auto shuffled = [&](uint64_t seed, const std::string& name) {
    Shuffle<int> stage(list(items), 40, seed, name);
    return take(stage);
  };
  const auto order = shuffled(1, "a");
  ASSERT_EQ(order.size(), 100u);
  for (size_t block = 0; block < 3; ++block) {
    const size_t begin = 40 * block, end = std::min<size_t>(begin + 40, 100);
    std::vector<int> sorted(order.begin() + static_cast<std::ptrdiff_t>(begin),
                            order.begin() + static_cast<std::ptrdiff_t>(end));
    EXPECT_FALSE(std::is_sorted(sorted.begin(), sorted.end()));
    std::sort(sorted.begin(), sorted.end());
    for (size_t i = begin; i < end; ++i) EXPECT_EQ(sorted[i - begin], items[i]);
  }
  EXPECT_EQ(order, shuffled(1, "a"));
  EXPECT_NE(order, shuffled(2, "a"));
  EXPECT_NE(order, shuffled(1, "b"));
}

TEST(Repeat, MakesEveryPassAnew) {
  Repeat<int> stage([](int64_t pass) { return list(std::vector<int>{static_cast<int>(pass), 7}); });
  EXPECT_EQ(take(stage, 6), (std::vector<int>{0, 7, 1, 7, 2, 7}));
}

TEST(Repeat, EndsWhenAPassIsEmpty) {
  Repeat<int> stage([](int64_t pass) { return list(std::vector<int>(pass < 2 ? 1 : 0)); });
  EXPECT_EQ(take(stage, 6).size(), 2u);
  EXPECT_FALSE(stage.next());
}

std::unique_ptr<Patcher> entropy_patcher() {
  EntropyPatching rule;
  rule.threshold = 2.0;
  return make_patcher({rule, {}});
}

TEST(PatchStage, CutsByTheEntropiesOfEachSequence) {
  const auto items = random_sequences(50, 3);
  const std::shared_ptr<const Patcher> patcher = entropy_patcher();
  auto source = std::make_shared<FakeEntropies>();
  PatchStage stage(list(items), {{0, patcher}}, source, {.block_bytes = 100});
  const auto patched = take(stage);
  ASSERT_EQ(patched.size(), items.size());
  EXPECT_LT(source->calls, 20) << "sequences are scored together";
  for (size_t i = 0; i < items.size(); ++i) {
    const std::vector<std::vector<int32_t>> ids{items[i].ids(true)};
    EXPECT_EQ(patched[i].ids, ids[0]);
    EXPECT_EQ(patched[i].starts, patcher->starts(ids[0], source->scores(ids)[0].entropies));
  }
}

TEST(PatchStage, LeavesStartsEmptyWithoutAPatcher) {
  PatchStage stage(list(random_sequences(3, 3)), {}, nullptr, {.eos = false});
  for (const PatchedSequence& sequence : take(stage)) {
    EXPECT_TRUE(sequence.starts.empty());
    EXPECT_NE(sequence.ids.back(), kEos);
  }
}

TEST(PatchStage, NeedsASourceForEntropies) {
  EXPECT_THROW(PatchStage(list(random_sequences(1, 1)), {{0, entropy_patcher()}}, nullptr, {}), c10::Error);
}

TEST(PatchStage, ThreadsChangeNothing) {
  const auto items = random_sequences(200, 3);
  const auto patched = [&](int64_t threads, int64_t ahead) {
    PatchStage stage(list(items), {{0, entropy_patcher()}}, std::make_shared<FakeEntropies>(),
                     {.block_bytes = 60, .threads = threads, .blocks_ahead = ahead});
    return texts_of(take(stage));
  };
  const auto expected = patched(0, 1);
  for (const int64_t threads : {1, 2, 8})
    for (const int64_t ahead : {1, 3, 100})
      EXPECT_EQ(patched(threads, ahead), expected) << threads << " " << ahead;
}

TEST(PatchStage, TheScheduleGoesByTheTextBefore) {
  std::vector<Sequence> items = equal_sequences(10, 'x', 8);
  for (size_t i = 0; i < items.size(); ++i) items[i].text_before = static_cast<int64_t>(8 * i);
  const std::shared_ptr<const Patcher> short_patches = make_patcher({StaticPatching{.patch_bytes = 2}, {}}),
                                       long_patches = make_patcher({StaticPatching{.patch_bytes = 8}, {}});
  PatchStage stage(list(items), {{0, short_patches}, {24, long_patches}}, nullptr, {.block_bytes = 1000});
  const auto patched = take(stage);
  for (size_t i = 0; i < items.size(); ++i) {
    EXPECT_EQ(patched[i].starts, (i < 3 ? short_patches : long_patches)->starts(patched[i].ids)) << i;
  }
}

}  // namespace
}  // namespace blt
