#include "blt/data/filled_batch.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "blt/data/pack.h"
#include "blt/data/patch_stage.h"
#include "fakes.h"
#include "message.h"

namespace blt {
namespace {

std::vector<int32_t> values(const at::Tensor& tensor) {
  const int32_t* data = tensor.const_data_ptr<int32_t>();
  return {data, data + tensor.numel()};
}

// The longest of the segments that there are.
int64_t longest(const Segments& segments) { return segments.offsets.diff().max().item<int64_t>(); }

std::unique_ptr<Stage<PatchedSequence>> patched(std::vector<Sequence> items, const PatchingConfig& patching) {
  return std::make_unique<PatchStage>(std::make_unique<ListStage<Sequence>>(std::move(items)),
                                      PatchSchedule{{0, make_patcher(patching)}}, nullptr,
                                      PatchStage::Options{});
}
std::unique_ptr<Stage<PatchedSequence>> unpatched(std::vector<Sequence> items) {
  return std::make_unique<PatchStage>(std::make_unique<ListStage<Sequence>>(std::move(items)),
                                      PatchSchedule{}, nullptr, PatchStage::Options{});
}

std::string text_bytes_of(const std::vector<Sequence>& items) {
  std::string result;
  for (const Sequence& item : items) result += item.bytes;
  return result;
}

// The ids and, where there are patches, the patches of the sequences of a batch that are text.
struct Text {
  std::vector<int64_t> ids, patches;
};
Text text_of_batch(const Batch& batch) {
  Text result;
  const std::vector<int32_t> offsets = values(batch.documents.offsets);
  const int64_t count = batch.documents.count - batch.num_filler_documents;
  const std::vector<int32_t> latents =
      batch.patches.count > 0 ? values(batch.latent_documents.offsets) : std::vector<int32_t>(offsets.size());
  for (int64_t d = 0; d < count; ++d) {
    result.ids.push_back(offsets[d + 1] - offsets[d]);
    result.patches.push_back(latents[d + 1] - latents[d]);
  }
  return result;
}

void expect_sizes(const Batch& batch, const FilledSizes& sizes) {
  EXPECT_EQ(batch.bytes.size(0), sizes.ids);
  EXPECT_EQ(batch.targets.size(0), sizes.ids);
  EXPECT_EQ(batch.documents.total, sizes.ids);
  EXPECT_EQ(batch.documents.count, sizes.sequences);
  EXPECT_EQ(batch.text_documents.count, sizes.sequences);
  EXPECT_EQ(batch.places.size(), static_cast<size_t>(sizes.sequences));
  EXPECT_EQ(batch.patches.count, sizes.patches);
  EXPECT_GE(batch.num_filler_documents, sizes.least_filler());
  EXPECT_EQ(batch.documents.longest, sizes.sequence_ids);
  EXPECT_LE(longest(batch.documents), batch.documents.longest);
  if (sizes.patches == 0) return;
  EXPECT_EQ(batch.patches.total, sizes.ids);
  EXPECT_EQ(batch.readers.total, sizes.ids);
  EXPECT_EQ(batch.latent_documents.total, sizes.patches);
  EXPECT_EQ(batch.patches.longest, sizes.sequence_ids - 1);
  EXPECT_LE(longest(batch.patches), batch.patches.longest);
  EXPECT_EQ(batch.readers.longest, sizes.sequence_ids - 1);
  EXPECT_LE(longest(batch.readers), batch.readers.longest);
  EXPECT_EQ(batch.latent_documents.longest, sizes.sequence_ids);
  EXPECT_LE(longest(batch.latent_documents), batch.latent_documents.longest);
}

// What is behind the text takes no loss and looks up no n-grams.
void expect_filler(const Batch& batch) {
  const std::vector<int32_t> ids = values(batch.bytes), targets = values(batch.targets),
                             all = values(batch.documents.offsets),
                             text = values(batch.text_documents.offsets);
  const int64_t count = batch.documents.count - batch.num_filler_documents;
  const int32_t end = all[count];
  EXPECT_EQ(batch.text_documents.total, end);
  for (size_t d = 0; d < all.size(); ++d) EXPECT_EQ(text[d], std::min(all[d], end));
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool is_filler = static_cast<int32_t>(i) >= end;
    EXPECT_EQ(ids[i] == kBoe || (is_filler && ids[i] == kBos), is_filler) << i;
    EXPECT_TRUE(!is_filler || targets[i] == kIgnore) << i;
  }
  EXPECT_EQ(batch.num_targets,
            std::count_if(targets.begin(), targets.end(), [](int32_t id) { return id != kIgnore; }));
  EXPECT_EQ(batch.num_byte_targets,
            std::count_if(targets.begin(), targets.end(), [](int32_t id) { return id >= kByteOffset; }));
  const int64_t text_patches = batch.patches.count > 0 ? values(batch.latent_documents.offsets)[count] : 0;
  EXPECT_EQ(batch.num_filler_patches, batch.patches.count - text_patches);
  for (size_t d = static_cast<size_t>(count); d < batch.places.size(); ++d)
    EXPECT_EQ(batch.places[d].source, -1);
}

// Whether a batch of this text could have gone on with a patch (or id) of so many ids.
bool takes_more(const Text& text, const FilledSizes& sizes, int64_t ids) {
  const bool patched = sizes.patches > 0;
  FilledRoom room(sizes), before_last(sizes);
  for (size_t d = 0; d < text.ids.size(); ++d) {
    room.take(text.ids[d], text.patches[d]);
    if (d + 1 < text.ids.size()) before_last.take(text.ids[d], text.patches[d]);
  }
  return room.fits(1 + ids, patched ? 2 : 0) &&
         before_last.fits(text.ids.back() + ids, patched ? text.patches.back() + 1 : 0);
}

struct Case {
  std::string name;
  std::vector<Sequence> items;
  PatchingConfig patching;
  FilledSizes sizes;
};

std::vector<Sequence> copies(int count, const Sequence& sequence) {
  return std::vector<Sequence>(static_cast<size_t>(count), sequence);
}

std::vector<Case> hard_cases() {
  const Sequence one_byte{"x", true, true}, long_run{std::string(40, 'x'), true, false},
      spaces{"a b c d e f g h i j k l m n o p q r s t ", true, true};
  const PatchingConfig by_space{SpacePatching{}, 5}, whole{StaticPatching{40}, {}},
      single{StaticPatching{1}, {}};
  std::vector<Sequence> mixed = random_sequences(120, 7, 40);
  for (int i = 0; i < 60; ++i) mixed.push_back(i % 3 == 0 ? long_run : i % 3 == 1 ? one_byte : spaces);
  std::vector<Case> cases;
  // The tightest sizes that there can be, usual ones, many patches, many sequences, few.
  for (const FilledSizes& sizes :
       {FilledSizes{50, 10, 5, 42}, FilledSizes{46, 6, 3, 42}, FilledSizes{400, 120, 30, 42},
        FilledSizes{400, 360, 40, 42}, FilledSizes{200, 160, 80, 42}, FilledSizes{1000, 200, 25, 42}}) {
    const std::string name = std::to_string(sizes.ids) + " ids " + std::to_string(sizes.patches) + " patches";
    cases.push_back({name + ", documents of one byte", copies(300, one_byte), by_space, sizes});
    cases.push_back({name + ", one document of one byte", {one_byte}, by_space, sizes});
    cases.push_back({name + ", one document", {long_run}, by_space, sizes});
    cases.push_back({name + ", patches as long as sequences", copies(60, long_run), whole, sizes});
    cases.push_back({name + ", patches of one byte", copies(60, long_run), single, sizes});
    cases.push_back({name + ", random text", random_sequences(200, 5, 40), by_space, sizes});
    cases.push_back({name + ", mixed", mixed, by_space, sizes});
  }
  return cases;
}

TEST(FilledBatch, EveryBatchHasItsSizesWhateverTheText) {
  for (const Case& c : hard_cases())
    for (const bool with_patches : {true, false}) {
      SCOPED_TRACE(c.name + (with_patches ? "" : ", bytes alone"));
      FilledSizes sizes = c.sizes;
      if (!with_patches) sizes.patches = 0;
      ASSERT_EQ(sizes.problem(), "");
      Pack pack(with_patches ? patched(c.items, c.patching) : unpatched(c.items),
                {.patched = with_patches, .filled = sizes});
      const std::vector<Batch> batches = take(pack);
      std::string text;
      int64_t byte_targets = 0;
      for (size_t b = 0; b < batches.size(); ++b) {
        const Batch& batch = batches[b];
        expect_sizes(batch, sizes);
        expect_filler(batch);
        byte_targets += batch.num_byte_targets;
        for (const int32_t id : values(batch.bytes))
          if (id >= kByteOffset) text += static_cast<char>(id - kByteOffset);
        if (b + 1 == batches.size()) continue;
        // Nor is there more filler than need be.
        const int64_t next = with_patches ? values(batches[b + 1].patches.offsets)[2] - 1 : 1;
        EXPECT_FALSE(takes_more(text_of_batch(batch), sizes, next)) << b;
      }
      EXPECT_EQ(text, text_bytes_of(c.items));
      EXPECT_EQ(byte_targets, static_cast<int64_t>(text.size())) << "every byte is a target once";
    }
}

TEST(FilledBatch, SizesThatFillerCannotMakeUpAreNamed) {
  EXPECT_NE((FilledSizes{100, 20, 3, 42}).problem().find("3 sequences are too few: 3 of them are for filler"),
            std::string::npos);
  EXPECT_NE((FilledSizes{100, 20, 11, 42}).problem().find("20 patches are too few for 11 sequences"),
            std::string::npos);
  EXPECT_NE((FilledSizes{59, 20, 5, 42}).problem().find("59 ids are too few for 20 patches"),
            std::string::npos);
  EXPECT_EQ((FilledSizes{60, 20, 5, 42}).problem(), "");
  EXPECT_NE((FilledSizes{5, 0, 5, 42}).problem().find("5 ids are too few for 5 sequences"),
            std::string::npos);
  EXPECT_MESSAGE(FilledRoom(FilledSizes{59, 20, 5, 42}), "59 ids are too few for 20 patches");
}

TEST(FilledBatch, RefusesTextThatLeavesNoRoom) {
  const PatchedSequence two_patches{.ids = {kBos, 70, 71}, .starts = {0, 1}, .targets = {}};
  const FilledSizes sizes{60, 20, 5, 42};
  EXPECT_EQ(fill_batch({two_patches, two_patches, two_patches}, sizes).num_filler_documents, 2);
  EXPECT_MESSAGE(fill_batch({two_patches, two_patches, two_patches, two_patches}, sizes),
                 "leave no room for filler");
}

}  // namespace
}  // namespace blt
