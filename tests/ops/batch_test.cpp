#include "blt/batch.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "message.h"
#include "op_case.h"

namespace blt {
namespace {

std::vector<int32_t> values(const at::Tensor& x) {
  const at::Tensor host = x.contiguous();
  return {host.const_data_ptr<int32_t>(), host.const_data_ptr<int32_t>() + host.numel()};
}

using Ints = std::vector<int32_t>;

std::vector<int32_t> bos_and(int64_t num_bytes) {
  Ints ids{kBos};
  for (int64_t i = 0; i < num_bytes; ++i) ids.push_back(kByteOffset + static_cast<int32_t>('a' + i));
  return ids;
}

TEST(Segments, OffsetsIdsAndPositionsAgree) {
  const Segments s = Segments::from_lengths({2, 1, 3});
  EXPECT_EQ(s.count, 3);
  EXPECT_EQ(s.longest, 3);
  EXPECT_EQ(s.total, 6);
  EXPECT_EQ(values(s.offsets), (Ints{0, 2, 3, 6}));
  EXPECT_EQ(values(s.ids()), (Ints{0, 0, 1, 2, 2, 2}));
  EXPECT_EQ(values(s.positions()), (Ints{0, 1, 0, 0, 1, 2}));
}

TEST(Segments, EmptyOnesAreSkippedByIdsWhereAllowed) {
  const Segments s = Segments::from_lengths({0, 2, 0, 1, 0}, /*allow_empty=*/true);
  EXPECT_EQ(values(s.offsets), (Ints{0, 0, 2, 2, 3, 3}));
  EXPECT_EQ(values(s.ids()), (Ints{1, 1, 3}));
  EXPECT_EQ(values(s.positions()), (Ints{0, 1, 0}));
}

TEST(Segments, NoneAtAll) {
  const Segments s = Segments::from_lengths({});
  EXPECT_EQ(s.count, 0);
  EXPECT_EQ(s.total, 0);
  EXPECT_EQ(s.longest, 0);
  EXPECT_EQ(values(s.offsets), (Ints{0}));
  EXPECT_EQ(s.ids().numel(), 0);
  EXPECT_EQ(s.positions().numel(), 0);
}

TEST(Segments, FromOffsetsGivesWhatFromLengthsGives) {
  const Segments s = Segments::from_offsets(at::tensor({0, 4, 5, 9}, at::kInt));
  EXPECT_EQ(s.count, 3);
  EXPECT_EQ(s.longest, 4);
  EXPECT_EQ(s.total, 9);
  EXPECT_EQ(values(s.ids()), (Ints{0, 0, 0, 0, 1, 2, 2, 2, 2}));
}

TEST(Segments, UniformOnesHaveEqualLengths) {
  const Segments s = Segments::uniform(3, 2, at::kCPU);
  EXPECT_EQ(values(s.offsets), (Ints{0, 2, 4, 6}));
  EXPECT_EQ(s.count, 3);
  EXPECT_EQ(s.longest, 2);
  EXPECT_EQ(s.total, 6);
  EXPECT_EQ(values(Segments::uniform(0, 2, at::kCPU).offsets), (Ints{0}));
}

TEST(Segments, RefuseWhatDoesNotCutARow) {
  EXPECT_MESSAGE(Segments::from_lengths({1, 0}), "segment 1 has length 0");
  EXPECT_MESSAGE(Segments::from_lengths({-1}, true), "segment 0 has length -1");
  EXPECT_MESSAGE(Segments::from_lengths({1LL << 30, 1LL << 30}), "more than 2^31 - 1");
  EXPECT_MESSAGE(Segments::from_offsets(at::tensor({1, 2}, at::kInt)), "offsets start at 0, got 1");
  EXPECT_MESSAGE(Segments::from_offsets(at::tensor({0, 2, 2}, at::kInt)), "segment 1 has length 0");
  EXPECT_MESSAGE(Segments::from_offsets(at::tensor({0, 3, 2}, at::kInt), true), "segment 1 has length -1");
  EXPECT_MESSAGE(Segments::from_offsets(at::tensor({0, 3}, at::kLong)), "int32");
  EXPECT_MESSAGE(Segments::from_offsets(at::zeros({2, 2}, at::kInt)), "[count + 1] int32");
  EXPECT_MESSAGE(Segments::uniform(1 << 20, 1 << 11, at::kCPU), "more than 2^31 - 1");
  EXPECT_MESSAGE(Segments::uniform(3, 0, at::kCPU), "length 0");
}

// BOS a b c d, patches {BOS} {a b} {c d}; the id that comes next belongs to the last patch, or starts one.
// An id's reader is the last patch that is complete before the id after it.
TEST(Batch, ReadersOfASequenceWhoseLastDecisionDoesNotFire) {
  const Batch batch = Batch::pack({{bos_and(4), {0, 1, 3}, {}}});
  EXPECT_EQ(values(batch.patches.offsets), (Ints{0, 1, 3, 5}));
  EXPECT_EQ(values(batch.latent_documents.offsets), (Ints{0, 3}));
  // BOS predicts a, the first of patch 1: reads latent 0. a predicts b: latent 0. b predicts c: latent 1.
  // c predicts d: 1. d predicts the next, still in patch 2: 1.
  EXPECT_EQ(values(batch.readers.ids()), (Ints{0, 0, 1, 1, 1}));
  EXPECT_EQ(batch.readers.count, 3);
}

TEST(Batch, ReadersOfASequenceWhoseLastDecisionFires) {
  const Batch batch = Batch::pack({{bos_and(4), {0, 1, 3, 5}, {}}});
  EXPECT_EQ(values(batch.patches.offsets), (Ints{0, 1, 3, 5}));
  // d predicts the first of patch 3: patch 2 is complete.
  EXPECT_EQ(values(batch.readers.ids()), (Ints{0, 0, 1, 1, 2}));
}

TEST(Batch, ABosAloneReadsItself) {
  const Batch batch = Batch::pack({{{kBos}, {0, 1}, {}}});
  EXPECT_EQ(values(batch.patches.offsets), (Ints{0, 1}));
  EXPECT_EQ(values(batch.readers.offsets), (Ints{0, 1}));
  EXPECT_EQ(values(batch.targets), (Ints{kIgnore}));
  EXPECT_EQ(batch.num_targets, 0);
}

TEST(Batch, SequencesLieEndToEnd) {
  const Batch batch =
      Batch::pack({{bos_and(2), {0, 1}, {}}, {{kBos}, {0, 1}, {}}, {{kBos, 70, kEos}, {0, 1, 2, 3}, {}}});
  EXPECT_EQ(values(batch.bytes), (Ints{kBos, 101, 102, kBos, kBos, 70, kEos}));
  EXPECT_EQ(values(batch.targets), (Ints{101, 102, kIgnore, kIgnore, 70, kEos, kIgnore}));
  EXPECT_EQ(values(batch.documents.offsets), (Ints{0, 3, 4, 7}));
  EXPECT_EQ(values(batch.patches.offsets), (Ints{0, 1, 3, 4, 5, 6, 7}));
  EXPECT_EQ(values(batch.latent_documents.offsets), (Ints{0, 2, 3, 6}));
  EXPECT_EQ(values(batch.readers.offsets), (Ints{0, 3, 3, 4, 5, 6, 7}));
  EXPECT_EQ(batch.num_targets, 4);
  EXPECT_EQ(batch.num_byte_targets, 3);
}

TEST(Batch, TakesTargetsThatAreGiven) {
  const Batch batch = Batch::pack({{bos_and(2), {0, 1}, {kIgnore, 102, kEos}}});
  EXPECT_EQ(values(batch.targets), (Ints{kIgnore, 102, kEos}));
  EXPECT_EQ(batch.num_targets, 2);
  EXPECT_EQ(batch.num_byte_targets, 1);
}

TEST(Batch, PackBytesLeavesPatchesAlone) {
  const Batch batch = Batch::pack_bytes({{bos_and(2), {}, {}}, {bos_and(1), {}, {}}});
  EXPECT_EQ(values(batch.documents.offsets), (Ints{0, 3, 5}));
  EXPECT_FALSE(batch.patches.offsets.defined());
  EXPECT_EQ(batch.num_targets, 3);
}

// The definition, id by id (REFERENCE, section 5): id i reads patch j where id i + 1 lies in patch j + 1.
Ints naive_readers(const PatchedSequence& sequence) {
  const auto size = static_cast<int64_t>(sequence.ids.size());
  Ints readers;
  for (int64_t i = 0; i < size; ++i) {
    int32_t patch_of_next = -1;
    for (const int64_t start : sequence.starts) patch_of_next += start <= i + 1;
    readers.push_back(patch_of_next - 1);
  }
  return readers;
}

Ints naive_patches(const PatchedSequence& sequence) {
  Ints patches;
  for (int64_t i = 0; i < static_cast<int64_t>(sequence.ids.size()); ++i)
    patches.push_back(static_cast<int32_t>(
        std::count_if(sequence.starts.begin(), sequence.starts.end(), [i](int64_t s) { return s <= i; }) -
        1));
  return patches;
}

TEST(Batch, AgreesWithTheDefinitionOnRandomPatches) {
  Rng rng(5);
  int64_t last_decisions_that_fire = 0;
  for (int round = 0; round < 200; ++round) {
    std::vector<PatchedSequence> sequences;
    Ints patches, readers, documents, targets;
    int32_t first_patch = 0;
    const int64_t count = rng.integer(1, 5);
    for (int64_t d = 0; d < count; ++d) {
      const int64_t size = rng.integer(1, 12);
      PatchedSequence sequence{bos_and(size - 1), {0, 1}, {}};
      for (int64_t at = 2; at <= size; ++at)
        if (rng.integer(0, 3) == 0) sequence.starts.push_back(at);
      last_decisions_that_fire += sequence.starts.back() == size;
      const Ints own_patches = naive_patches(sequence);
      for (const int32_t p : own_patches) patches.push_back(first_patch + p);
      for (const int32_t r : naive_readers(sequence)) readers.push_back(first_patch + r);
      documents.insert(documents.end(), size, static_cast<int32_t>(d));
      targets.insert(targets.end(), sequence.ids.begin() + 1, sequence.ids.end());
      targets.push_back(kIgnore);
      first_patch += own_patches.back() + 1;
      sequences.push_back(sequence);
    }
    const Batch batch = Batch::pack(sequences);
    ASSERT_EQ(values(batch.patches.ids()), patches);
    ASSERT_EQ(values(batch.readers.ids()), readers);
    ASSERT_EQ(values(batch.documents.ids()), documents);
    ASSERT_EQ(values(batch.targets), targets);
    ASSERT_EQ(batch.patches.count, first_patch);
    ASSERT_EQ(batch.readers.count, first_patch);
    // The documents of latents: the document of each patch's first byte.
    const Ints starts = values(batch.patches.offsets),
               latent_documents = values(batch.latent_documents.ids());
    for (int32_t p = 0; p < first_patch; ++p) ASSERT_EQ(latent_documents[p], documents[starts[p]]);
  }
  EXPECT_GT(last_decisions_that_fire, 100);
}

TEST(Batch, RefusesSequencesThatBreakARule) {
  const Ints ids = bos_and(3);
  EXPECT_MESSAGE(Batch::pack({{{}, {0}, {}}}), "starts with BOS");
  EXPECT_MESSAGE(Batch::pack({{{70, 71}, {0, 1}, {}}}), "starts with BOS");
  EXPECT_MESSAGE(Batch::pack({{{kBos, 260}, {0, 1}, {}}}), "id 260 is not in the vocabulary");
  EXPECT_MESSAGE(Batch::pack({{{kBos, -1}, {0, 1}, {}}}), "id -1 is not in the vocabulary");
  EXPECT_MESSAGE(Batch::pack({{ids, {}, {}}}), "first patch starts at 0");
  EXPECT_MESSAGE(Batch::pack({{ids, {1}, {}}}), "first patch starts at 0");
  EXPECT_MESSAGE(Batch::pack({{ids, {0}, {}}}), "alone in its patch");
  EXPECT_MESSAGE(Batch::pack({{ids, {0, 2}, {}}}), "alone in its patch");
  EXPECT_MESSAGE(Batch::pack({{ids, {0, 1, 3, 3}, {}}}), "got 3 after 3");
  EXPECT_MESSAGE(Batch::pack({{ids, {0, 1, 5}, {}}}), "got 5 after 1");
  EXPECT_MESSAGE(Batch::pack({{ids, {0, 1}, {5, 6}}}), "4 ids but 2 targets");
}

}  // namespace
}  // namespace blt
