#include "blt/data/pack.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "blt/data/patch_stage.h"
#include "fakes.h"

namespace blt {
namespace {

std::unique_ptr<Stage<PatchedSequence>> patched(std::vector<Sequence> items) {
  return std::make_unique<PatchStage>(std::make_unique<ListStage<Sequence>>(std::move(items)),
                                      PatchSchedule{{0, make_patcher({SpacePatching{}, 5})}}, nullptr,
                                      PatchStage::Options{});
}
std::vector<int32_t> values(const at::Tensor& tensor) {
  const int32_t* data = tensor.const_data_ptr<int32_t>();
  return {data, data + tensor.numel()};
}
int64_t total_bytes(const std::vector<Sequence>& items) {
  return std::accumulate(items.begin(), items.end(), int64_t{0}, [](int64_t sum, const Sequence& s) {
    return sum + static_cast<int64_t>(s.bytes.size());
  });
}
// The text of batches, without the special ids.
std::string text_bytes_of(const std::vector<Batch>& batches) {
  std::string result;
  for (const Batch& batch : batches)
    for (const int32_t id : values(batch.bytes))
      if (id >= kByteOffset) result += static_cast<char>(id - kByteOffset);
  return result;
}
std::string text_bytes_of(const std::vector<Sequence>& items) {
  std::string result;
  for (const Sequence& item : items) result += item.bytes;
  return result;
}

TEST(Pack, FillsByteBudgetsWithWholeSequencesWhereNoneIsCut) {
  const auto items = random_sequences(200, 1);
  Pack pack(patched(items), {.bytes = 100, .cut = false});
  const auto batches = take(pack);
  EXPECT_EQ(text_bytes_of(batches), text_bytes_of(items));
  int64_t sequences = 0, byte_targets = 0;
  for (size_t b = 0; b < batches.size(); ++b) {
    const int64_t first = sequences;
    sequences += batches[b].documents.count;
    byte_targets += batches[b].num_byte_targets;
    const auto size_until = [&](int64_t end) {
      return total_bytes({items.begin() + first, items.begin() + end});
    };
    EXPECT_LE(size_until(sequences), 100);
    if (b + 1 < batches.size()) {
      EXPECT_GT(size_until(sequences + 1), 100) << "what follows would have fitted";
    }
  }
  EXPECT_EQ(sequences, 200);
  EXPECT_EQ(byte_targets, total_bytes(items)) << "every byte is a target once";
}

TEST(Pack, SpecialIdsDoNotCount) {
  Pack pack(patched(std::vector<Sequence>(8, Sequence{std::string(25, 'x'), true, true})), {.bytes = 100});
  for (const Batch& batch : take(pack)) EXPECT_EQ(batch.documents.count, 4);
}

TEST(Pack, ALongerSequenceIsABatchByItself) {
  const std::vector<Sequence> items(3, Sequence{std::string(25, 'x'), true, true});
  Pack pack(patched(items), {.bytes = 10, .cut = false});
  EXPECT_EQ(take(pack).size(), 3u);
}

TEST(Pack, WithoutPatchesBatchesAreBytesAlone) {
  Pack pack(patched(random_sequences(10, 1)), {.bytes = 1000, .patched = false});
  const Batch batch = *pack.next();
  EXPECT_EQ(batch.documents.count, 10);
  EXPECT_EQ(batch.patches.count, 0);
}

TEST(Pack, FillsPatchBudgetsExactly) {
  const auto items = random_sequences(200, 2);
  for (const int64_t patches : {2, 3, 7, 64}) {
    Pack pack(patched(items), {.patches = patches});
    const auto batches = take(pack);
    EXPECT_EQ(text_bytes_of(batches), text_bytes_of(items));
    int64_t byte_targets = 0;
    for (size_t b = 0; b < batches.size(); ++b) {
      byte_targets += batches[b].num_byte_targets;
      EXPECT_LE(batches[b].patches.count, patches);
      if (b + 1 < batches.size()) {
        EXPECT_GE(batches[b].patches.count, patches - 1);
      }
    }
    EXPECT_EQ(byte_targets, total_bytes(items))
        << "the BOS after a cut predicts what the id before it does not";
  }
}

TEST(Pack, FillsByteBudgetsToTheLastPatchThatFits) {
  const auto items = random_sequences(300, 3, 200);
  for (const bool patched_batches : {false, true}) {
    const auto metrics = std::make_shared<LoaderMetrics>(std::vector<SourceConfig>());
    Pack pack(patched_batches ? patched(items)
                              : std::make_unique<PatchStage>(std::make_unique<ListStage<Sequence>>(items),
                                                             PatchSchedule{}, nullptr, PatchStage::Options{}),
              {.bytes = 1000, .patched = patched_batches}, metrics);
    const auto batches = take(pack);
    EXPECT_EQ(text_bytes_of(batches), text_bytes_of(items));
    int64_t byte_targets = 0;
    for (size_t b = 0; b < batches.size(); ++b) {
      const auto size = static_cast<int64_t>(text_bytes_of(std::vector{batches[b]}).size());
      byte_targets += batches[b].num_byte_targets;
      EXPECT_LE(size, 1000);
      if (b + 1 < batches.size()) {
        EXPECT_GE(size, patched_batches ? 996 : 1000) << "a patch has at most 5 bytes";
      }
    }
    EXPECT_EQ(byte_targets, total_bytes(items)) << "every byte is a target once";
    EXPECT_EQ(metrics->batches, static_cast<int64_t>(batches.size()));
    const auto numbers = metrics->take();
    const auto unused = std::find_if(numbers.begin(), numbers.end(),
                                     [](const auto& n) { return n.first == "unused_budget"; });
    ASSERT_NE(unused, numbers.end());
    // Only the last batch may be far from full.
    EXPECT_LT(unused->second, 0.01 + 1.0 / static_cast<double>(batches.size()));
  }
}

TEST(Pack, KeepsToBothBudgets) {
  auto items = random_sequences(100, 4, 200);                                  // short patches
  items.insert(items.end(), 20, Sequence{std::string(100, 'x'), true, true});  // long ones
  Pack pack(patched(items), {.bytes = 200, .patches = 50});
  const auto batches = take(pack);
  EXPECT_EQ(text_bytes_of(batches), text_bytes_of(items));
  bool by_bytes = false, by_patches = false;
  for (size_t b = 0; b + 1 < batches.size(); ++b) {
    const auto size = static_cast<int64_t>(text_bytes_of(std::vector{batches[b]}).size());
    EXPECT_LE(size, 200);
    EXPECT_LE(batches[b].patches.count, 50);
    EXPECT_TRUE(size >= 196 || batches[b].patches.count >= 49);
    (size >= 196 ? by_bytes : by_patches) = true;
  }
  EXPECT_TRUE(by_bytes && by_patches) << "the test should see both";
}

TEST(Pack, APatchAboveTheBudgetIsABatch) {
  const PatchedSequence sequence{{kBos, 10, 11, 12, 13, 14, 15}, {0, 1, 6}, {}};
  Pack pack(std::make_unique<ListStage<PatchedSequence>>(std::vector{sequence}), {.bytes = 2});
  EXPECT_EQ(values(pack.next()->bytes), (std::vector<int32_t>{kBos, 10, 11, 12, 13, 14}));
  EXPECT_EQ(values(pack.next()->bytes), (std::vector<int32_t>{kBos, 15}));
  EXPECT_FALSE(pack.next());
}

TEST(Pack, ATailKeepsItsPatchesBehindItsOwnBos) {
  // Patches: BOS | a b | c d e | f, and the next id starts one.
  const PatchedSequence sequence{{kBos, 10, 11, 12, 13, 14, 15}, {0, 1, 3, 6, 7}, {}};
  Pack pack(std::make_unique<ListStage<PatchedSequence>>(std::vector{sequence}), {.patches = 2});
  const Batch head = *pack.next(), middle = *pack.next(), tail = *pack.next();
  EXPECT_FALSE(pack.next());
  EXPECT_EQ(values(head.bytes), (std::vector<int32_t>{kBos, 10, 11}));
  EXPECT_EQ(values(head.targets), (std::vector<int32_t>{10, 11, kIgnore}));
  EXPECT_EQ(values(head.patches.offsets), (std::vector<int32_t>{0, 1, 3}));
  EXPECT_EQ(values(head.readers.offsets), (std::vector<int32_t>{0, 2, 3}))
      << "the id before the cut reads the completed patch";
  EXPECT_EQ(values(middle.bytes), (std::vector<int32_t>{kBos, 12, 13, 14}));
  EXPECT_EQ(values(middle.targets), (std::vector<int32_t>{12, 13, 14, kIgnore}));
  EXPECT_EQ(values(middle.patches.offsets), (std::vector<int32_t>{0, 1, 4}));
  EXPECT_EQ(values(tail.bytes), (std::vector<int32_t>{kBos, 15}));
  EXPECT_EQ(values(tail.readers.offsets), (std::vector<int32_t>{0, 1, 2}));
}

TEST(Pack, ACutKeepsTheTargetsOfASequenceThatHasItsOwn) {
  const PatchedSequence sequence{{kBos, 10, 11, 12}, {0, 1, 3}, {kIgnore, 11, 12, 99}};
  Pack pack(std::make_unique<ListStage<PatchedSequence>>(std::vector{sequence}), {.patches = 2});
  const Batch head = *pack.next(), tail = *pack.next();
  EXPECT_EQ(values(head.targets), (std::vector<int32_t>{kIgnore, 11, kIgnore}));
  EXPECT_EQ(values(tail.targets), (std::vector<int32_t>{12, 99}));
}

TEST(Pack, RefusesBudgetsThatCannotBe) {
  EXPECT_THROW(Pack(patched({}), {}), c10::Error);
  EXPECT_THROW(Pack(patched({}), {.patches = 1}), c10::Error);
  EXPECT_THROW(Pack(patched({}), {.patches = 8, .patched = false}), c10::Error);
}

}  // namespace
}  // namespace blt
