// The law of every stage: saved at any point and loaded into a new one, the stream goes on byte for byte.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "archives.h"
#include "blt/data/documents.h"
#include "blt/data/loader.h"
#include "blt/data/mix.h"
#include "blt/data/pack.h"
#include "blt/data/patch_stage.h"
#include "blt/data/prefetch.h"
#include "blt/data/repeat.h"
#include "blt/data/shuffle.h"
#include "blt/data/split.h"
#include "fakes.h"
#include "message.h"
#include "temporary_folder.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;

// most: of an endless stream, what is looked at.
template <class T>
void expect_resumable(const std::function<std::unique_ptr<Stage<T>>()>& make, size_t most = 60) {
  const auto whole = texts_of(take(*make(), most));
  ASSERT_GE(whole.size(), 4u);
  for (size_t cut = 0; cut <= whole.size(); ++cut) {
    const auto first = make();
    take(*first, cut);
    StateWriter state;
    first->save(state);
    const std::string json = state.json();
    EXPECT_LT(json.size(), 4096u) << "a state is small";
    const std::vector<std::string> rest(whole.begin() + static_cast<std::ptrdiff_t>(cut), whole.end());

    const auto second = make();
    second->load(StateReader(json, "state"));
    EXPECT_EQ(texts_of(take(*second, most - cut)), rest) << "after " << cut << ": " << json;
    // A stage that is somewhere else goes there too, and saving changed nothing in the first.
    second->load(StateReader(json, "state"));
    StateWriter again;
    second->save(again);
    EXPECT_EQ(again.json(), json);
    EXPECT_EQ(texts_of(take(*second, most - cut)), rest) << "loaded again after " << cut;
    EXPECT_EQ(texts_of(take(*first, most - cut)), rest) << "saved after " << cut;
  }
}

class Resume : public testing::Test {
 protected:
  Resume() {
    std::string lines, other;
    for (int i = 0; i < 12; ++i) {
      if (i == 5) lines += "\n";
      lines +=
          "{\"text\": \"" + std::string(static_cast<size_t>(3 * i), static_cast<char>('a' + i)) + " \\n\"}\n";
      other += "some words of line " + std::to_string(i) + "\n";
    }
    folder_.write("text/a.jsonl", lines);
    folder_.write("text/b.jsonl.gz", gzip(lines));
    folder_.write("text/c.jsonl.zst", zstd(lines));
    folder_.write("other/d.txt", other);
    folder_.write("other/e.txt.gz", gzip(other));
    folder_.write("other/f.txt.zst", zstd(other));
  }
  std::function<std::unique_ptr<Stage<Sequence>>()> documents(const std::string& name) const {
    SourceConfig source;
    source.paths = {folder_ / name};
    return [files = find_files(source)] {
      return std::make_unique<Documents>(files, Documents::Options{.sequence_bytes = 13});
    };
  }
  DataConfig config() const {
    DataConfig config;
    config.sources.resize(2);
    config.sources[0].paths = {folder_ / "text"};
    config.sources[1].paths = {folder_ / "other"};
    config.sources[1].weight = 0.5;
    config.validation = config.sources;
    config.sequence_bytes = 20;
    config.batch_bytes = 50;
    config.shuffle_sequences = 7;
    config.entropy_batch_bytes = 70;
    return config;
  }
  TemporaryFolder folder_;
};

TEST_F(Resume, Documents) {
  for (const char* name : {"text/a.jsonl", "text/b.jsonl.gz", "text/c.jsonl.zst", "other/d.txt",
                           "other/e.txt.gz", "other/f.txt.zst", "text", "other"})
    expect_resumable<Sequence>(documents(name), 120);
}

TEST_F(Resume, MixAndConcatenate) {
  expect_resumable<Sequence>([&] {
    std::vector<Mix::Input> inputs;
    inputs.push_back({documents("text")(), 2.0});
    inputs.push_back({documents("other")(), 1.0});
    return std::make_unique<Mix>(std::move(inputs));
  });
  expect_resumable<Sequence>(
      [&] {
        std::vector<std::unique_ptr<Stage<Sequence>>> inputs;
        inputs.push_back(documents("text/a.jsonl")());
        inputs.push_back(documents("other/d.txt")());
        return std::make_unique<Concatenate>(std::move(inputs));
      },
      120);
}

TEST_F(Resume, RepeatAndShuffle) {
  const auto shuffled = [&](int64_t block, const std::string& name) {
    return std::make_unique<Shuffle<Sequence>>(documents("text/a.jsonl")(), block, 3, name);
  };
  for (const int64_t block : {1, 4, 1000}) {
    expect_resumable<Sequence>([&] { return shuffled(block, "a"); });
    expect_resumable<Sequence>([&] {
      return std::make_unique<Repeat<Sequence>>(
          [=](int64_t pass) { return shuffled(block, std::to_string(pass)); });
    });
  }
}

TEST_F(Resume, Patches) {
  const auto items = random_sequences(40, 1);
  EntropyPatching rule;
  rule.threshold = 2.0;
  const std::shared_ptr<const Patcher> space = make_patcher({SpacePatching{}, {}}),
                                       entropy = make_patcher({rule, {}});
  for (const auto& patcher : {space, entropy})
    for (const int64_t threads : {0, 3})
      expect_resumable<PatchedSequence>([&] {
        return std::make_unique<PatchStage>(
            std::make_unique<ListStage<Sequence>>(items), PatchSchedule{{0, patcher}},
            std::make_shared<FakeEntropies>(),
            PatchStage::Options{.block_bytes = 60, .threads = threads, .blocks_ahead = 4});
      });
}

TEST_F(Resume, PatchesInBlocksOfAnotherSize) {
  const auto items = random_sequences(200, 1);
  const std::shared_ptr<const Patcher> patcher = make_patcher({SpacePatching{}, {}});
  const auto stage = [&](int64_t block_bytes, int64_t threads) {
    return PatchStage(std::make_unique<ListStage<Sequence>>(items), {{0, patcher}}, nullptr,
                      {.block_bytes = block_bytes, .threads = threads, .blocks_ahead = 4});
  };
  auto in_one = stage(500, 0);
  const auto whole = texts_of(take(in_one));
  for (const auto& [saved, loaded] : {std::pair<int64_t, int64_t>{500, 100}, {100, 500}, {500, 1}})
    for (size_t cut = 0; cut <= whole.size(); cut += 7) {
      auto first = stage(saved, 3);
      take(first, cut);
      StateWriter state;
      first.save(state);
      auto second = stage(loaded, cut % 2 == 0 ? 0 : 2);
      second.load(StateReader(state));
      const std::vector<std::string> rest(whole.begin() + static_cast<std::ptrdiff_t>(cut), whole.end());
      ASSERT_EQ(texts_of(take(second)), rest) << saved << " bytes, then " << loaded << ", after " << cut;
    }
}

// A training run may change it (docs/formats.md).
TEST_F(Resume, TheWholeChainWithAnotherEntropyBatchBytes) {
  EntropyPatching rule;
  rule.threshold = 2.0;
  const std::shared_ptr<const Patcher> patcher = make_patcher({rule, 8});
  const auto loader = [&](int64_t entropy_batch_bytes) {
    DataConfig data = config();
    data.entropy_batch_bytes = entropy_batch_bytes;
    return make_patch_loader(data, Pass::kTraining, patcher, std::make_shared<FakeEntropies>());
  };
  constexpr size_t kMost = 60;
  const auto whole = texts_of(take(*loader(500), kMost));
  for (size_t cut = 0; cut < kMost; ++cut) {
    const auto first = loader(cut % 2 == 0 ? 500 : 100), second = loader(cut % 2 == 0 ? 100 : 500);
    take(*first, cut);
    StateWriter state;
    first->save(state);
    second->load(StateReader(state));
    const std::vector<std::string> rest(whole.begin() + static_cast<std::ptrdiff_t>(cut), whole.end());
    ASSERT_EQ(texts_of(take(*second, kMost - cut)), rest) << "after " << cut;
  }
}

TEST_F(Resume, AShuffledBlockThatBecameShorterIsAnError) {
  const auto items = random_sequences(20, 1);
  Shuffle<Sequence> first(std::make_unique<ListStage<Sequence>>(items), 10, 3, "a");
  take(first, 7);
  StateWriter state;
  first.save(state);
  Shuffle<Sequence> second(
      std::make_unique<ListStage<Sequence>>(std::vector<Sequence>(items.begin(), items.begin() + 7)), 10, 3,
      "a");
  EXPECT_MESSAGE(second.load(StateReader(state)),
                 "the data is no longer what it was when this state was saved");
}

TEST_F(Resume, Pack) {
  const auto items = random_sequences(40, 2);
  const std::shared_ptr<const Patcher> patcher = make_patcher({SpacePatching{}, {}});
  for (const Pack::Options& options :
       {Pack::Options{.bytes = 60}, Pack::Options{.bytes = 60, .cut = false}, Pack::Options{.bytes = 1},
        Pack::Options{.bytes = 30, .patches = 9}, Pack::Options{.patches = 2}, Pack::Options{.patches = 9},
        Pack::Options{.bytes = 45, .patched = false}, Pack::Options{.filled = FilledSizes{90, 30, 7, 32}},
        Pack::Options{.patched = false, .filled = FilledSizes{90, 0, 7, 32}}})
    expect_resumable<Batch>(
        [&] {
          auto sequences = std::make_unique<PatchStage>(std::make_unique<ListStage<Sequence>>(items),
                                                        PatchSchedule{{0, patcher}}, nullptr,
                                                        PatchStage::Options{.block_bytes = 60});
          return std::make_unique<blt::Pack>(std::move(sequences), options);
        },
        400);
}

TEST_F(Resume, PrefetchAndSplit) {
  for (const int64_t depth : {0, 1, 5})
    expect_resumable<Sequence>(
        [&] { return std::make_unique<Prefetch<Sequence>>(documents("text")(), depth); });
  for (const int64_t rank : {0, 2})
    expect_resumable<Sequence>(
        [&] { return std::make_unique<Split>(documents("text")(), Share{.rank = rank, .ranks = 3}); });
}

TEST_F(Resume, TheWholeChain) {
  EntropyPatching rule;
  rule.threshold = 2.0;
  const std::shared_ptr<const Patcher> patcher = make_patcher({rule, 8});
  DataConfig data = config();
  for (const Pass pass : {Pass::kTraining, Pass::kValidation}) {
    data.threads = pass == Pass::kTraining ? 2 : 0;
    data.batch_patches.reset();
    expect_resumable<Batch>([&] { return make_byte_loader(data, pass); });
    expect_resumable<Batch>(
        [&] { return make_patch_loader(data, pass, patcher, std::make_shared<FakeEntropies>()); });
    data.batch_patches = 11;
    expect_resumable<Batch>(
        [&] { return make_patch_loader(data, pass, patcher, std::make_shared<FakeEntropies>()); });
  }
}

TEST_F(Resume, AStateOfOtherDataIsAnError) {
  const auto stage = documents("text")();
  take(*stage, 3);
  StateWriter state;
  stage->save(state);
  EXPECT_MESSAGE(documents("other")()->load(StateReader(state)), "it was reading a.jsonl, number 1 of them");
  const auto mix = make_sequences(config(), Pass::kTraining);
  EXPECT_MESSAGE(mix->load(StateReader(state, "run/loader.json")),
                 "run/loader.json: the saved state has no section 'input0'");
  EXPECT_MESSAGE(StateReader("{\"a\": ", "x.json"), "x.json: is no saved state");
  EXPECT_MESSAGE(StateReader("{\"a\": [1]}", "x.json"), "x.json.a: is no saved state");
}

TEST_F(Resume, AFileThatBecameShorterIsAnError) {
  const auto stage = documents("other/d.txt")();
  take(*stage, 10);
  StateWriter state;
  stage->save(state);
  folder_.write("other/d.txt", "short");
  EXPECT_MESSAGE(documents("other/d.txt")()->load(StateReader(state)),
                 "d.txt: is shorter than when the state was saved");
}

}  // namespace
}  // namespace blt
