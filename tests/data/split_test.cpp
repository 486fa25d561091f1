// Ranks share one order of sequences, and hand it over to other numbers of ranks.
#include "blt/data/split.h"

#include <gtest/gtest.h>

#include <iterator>
#include <map>
#include <sstream>

#include "blt/base/error.h"
#include "blt/data/loader.h"
#include "fakes.h"
#include "message.h"
#include "temporary_folder.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;

TEST(Split, SharesAreDisjointAndTogetherEverything) {
  const auto items = random_sequences(101, 1);
  for (const int64_t ranks : {1, 2, 3, 7}) {
    std::vector<std::string> together(items.size());
    for (int64_t rank = 0; rank < ranks; ++rank) {
      Split split(std::make_unique<ListStage<Sequence>>(items), {.rank = rank, .ranks = ranks});
      const auto texts = texts_of(take(split));
      for (size_t i = 0; i < texts.size(); ++i)
        together[i * static_cast<size_t>(ranks) + static_cast<size_t>(rank)] = texts[i];
    }
    EXPECT_EQ(together, texts_of(items));
  }
}

// Ranks that train, are stopped, and go on in another number.
class HandOver : public testing::Test {
 protected:
  HandOver() {
    std::string lines;
    Rng rng(3, "documents");
    for (int i = 0; i < 1000; ++i) {
      // Words that tell where they are from, each a patch: "17x0 17x1 17x2 …"
      std::string text;
      for (uint64_t w = 0, words = 1 + rng.below(30); w < words; ++w)
        text += std::to_string(i) + "x" + std::to_string(w) + " ";
      lines += "{\"text\": \"" + text + "\"}\n";
    }
    config.sources.resize(1);
    config.sources[0].paths = {folder.write("train.jsonl", lines)};
    config.sequence_bytes = 400;  // whole documents
    config.shuffle_sequences = 64;
    config.entropy_batch_bytes = 200;
    config.prefetch = 2;
  }
  std::unique_ptr<Stage<Batch>> loader(Share share) const {
    return make_patch_loader(config, Pass::kTraining, make_patcher({SpacePatching(), {}}), nullptr,
                             {.share = share});
  }
  // Text by the sequence that it is from, in the order of consumption.
  void consume(const Batch& batch, std::string& text) {
    for (int64_t i = 0; i < batch.bytes.numel(); ++i) {
      const int32_t id = batch.bytes.const_data_ptr<int32_t>()[i];
      if (id >= kByteOffset) text += static_cast<char>(id - kByteOffset);
    }
  }
  static std::vector<std::string> words_of(const std::string& text) {
    std::istringstream stream(text);
    return {std::istream_iterator<std::string>(stream), std::istream_iterator<std::string>()};
  }
  TemporaryFolder folder;
  DataConfig config;
};

TEST_F(HandOver, EveryByteIsConsumedOnceWhateverTheNumbersOfRanks) {
  for (const bool cut : {true, false})
    for (uint64_t trial = 0; trial < 6; ++trial) {
      Rng rng(trial, "hand over");
      config.batch_bytes = 120;
      config.batch_patches = cut ? std::optional<int64_t>(17) : std::nullopt;
      std::string consumed;
      std::optional<std::string> state;
      int64_t ranks = 1;
      for (const int64_t next_ranks : {1, 2, 3, 1, 3, 2, 5}) {
        std::vector<std::string> states;
        ranks = next_ranks;
        for (int64_t rank = 0; rank < ranks; ++rank) {
          const auto stage = loader({.rank = rank, .ranks = ranks});
          if (state) stage->load(StateReader(*state, "state"));
          for (uint64_t n = rng.below(12); n > 0; --n) consume(*stage->next(), consumed);
          StateWriter out;
          stage->save(out);
          states.push_back(out.json());
          EXPECT_LT(states.back().size(), 4096u) << "a state is small";
        }
        std::vector<StateReader> readers;
        for (const std::string& text : states) readers.emplace_back(text, "state");
        state = hand_over(readers).json();
      }
      // One rank reads what is left of the first epoch: then every word was there once, but for a batch's of the second epoch.
      std::string whole;
      for (const Sequence& sequence : take(*make_sequences(config, Pass::kTraining), 1000))
        whole += sequence.bytes;
      const auto rest = loader({});
      rest->load(StateReader(*state, "state"));
      ASSERT_LT(consumed.size(), whole.size());
      while (consumed.size() < whole.size()) consume(*rest->next(), consumed);
      EXPECT_LT(consumed.size(), whole.size() + 120);
      std::map<std::string, int> counts;
      for (const std::string& word : words_of(consumed)) ++counts[word];
      size_t twice = 0;
      for (const std::string& word : words_of(whole)) {
        EXPECT_GE(counts[word], 1) << word << " in trial " << trial;
        twice += counts[word] > 1 ? 1 : 0;
      }
      EXPECT_LE(twice, 25u) << "trial " << trial;
    }
}

TEST_F(HandOver, TheSequenceOfDocumentsIsThatOfOneRank) {
  config.batch_bytes = 50;
  // One rank, handed over to itself in the middle of a sequence, sees what it would have seen.
  const auto whole = loader({});
  const auto expected = texts_of(take(*whole, 120));
  for (const size_t cut : {0, 1, 17, 50}) {
    const auto first = loader({});
    take(*first, cut);
    StateWriter out;
    first->save(out);
    const std::vector<StateReader> states{StateReader(out.json(), "state")};
    const auto second = loader({});
    second->load(StateReader(hand_over(states).json(), "state"));
    EXPECT_EQ(texts_of(take(*second, 120 - cut)),
              std::vector<std::string>(expected.begin() + static_cast<std::ptrdiff_t>(cut), expected.end()));
  }
}

TEST_F(HandOver, StatesOfOtherRanksAreErrors) {
  const auto state = [&](Share share) {
    const auto stage = loader(share);
    take(*stage, 3);
    StateWriter out;
    stage->save(out);
    return StateReader(out.json(), "state");
  };
  EXPECT_MESSAGE(loader({.rank = 0, .ranks = 3})->load(state({.rank = 1, .ranks = 2})),
                 "the state of rank 1 of 2, not of rank 0 of 3");
  const std::vector<StateReader> twice{state({.rank = 0, .ranks = 2}), state({.rank = 0, .ranks = 2})};
  EXPECT_MESSAGE(hand_over(twice), "number 1 is of rank 0 of 2");
  const std::vector<StateReader> missing{state({.rank = 0, .ranks = 2})};
  EXPECT_MESSAGE(hand_over(missing), "not the states of all 1 ranks");
}

}  // namespace
}  // namespace blt
