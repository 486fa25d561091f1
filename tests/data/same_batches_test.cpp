// The loader's promise with a real entropy model: batches do not depend on threads, cache or breaks.
#include <ATen/Context.h>
#include <gtest/gtest.h>
#include <torch/optim/adamw.h>
#include <torch/utils.h>

#include <filesystem>
#include <iostream>
#include <iterator>
#include <set>

#include "blt/base/error.h"
#include "blt/data/loader.h"
#include "blt/model/linear.h"
#include "blt/train/loss.h"
#include "fakes.h"
#include "message.h"
#include "temporary_folder.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;
namespace fs = std::filesystem;

size_t num_threads() {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator("/proc/self/task"), fs::directory_iterator()));
}

class SameBatches : public testing::Test {
 protected:
  SameBatches() {
    std::string lines;
    Rng rng(3, "documents");
    for (int i = 0; i < 500; ++i) {
      std::string text;
      for (uint64_t w = 0, words = 1 + rng.below(60); w < words; ++w)
        text += std::to_string(rng.below(50)) + (rng.below(9) == 0 ? "\\n" : " ");
      lines += "{\"text\": \"" + text + "\"}\n";
    }
    config_.sources.resize(2);
    config_.sources[0].paths = {folder_.write("a.jsonl", lines)};
    config_.sources[1].paths = {folder_.write("b.jsonl", lines)};
    config_.sources[1].weight = 0.5;
    config_.sequence_bytes = 100;
    config_.shuffle_sequences = 100;
    config_.entropy_batch_bytes = 500;
    config_.batch_bytes = 600;
    config_.batch_patches = 150;
    config_.prefetch = 3;
    EntropyModelConfig model;
    model.dim = 16;
    model.layers = 1;
    model.heads = 2;
    model.window = 16;
    torch::manual_seed(1);
    model_ = EntropyModel(model);
    freeze(*model_);
    EntropyPatching rule;
    rule.mean_patch_bytes = 4;
    EntropyModelSource source(model_, {});
    rule.set_threshold(calibrate_on(config_, {rule, {}}, source, 5000).threshold);
    patching_.rule = rule;
  }
  std::unique_ptr<Stage<Batch>> loader(const DataConfig& config) const {
    return make_patch_loader(config, Pass::kTraining, make_patcher(patching_),
                             make_entropies(config, model_, false));
  }
  // Whatever the number of threads, live or cached, fresh or resumed.
  void expect_same_batches(const std::vector<int64_t>& numbers_of_threads);

  TemporaryFolder folder_;
  DataConfig config_;
  EntropyModel model_{nullptr};
  PatchingConfig patching_;
};

constexpr size_t kSteps = 200;

TEST_F(SameBatches, ForAnyThreadsLiveOrCachedFreshOrResumed) { expect_same_batches({1, 2, 8}); }

TEST_F(SameBatches, InBfloat16) {
  config_.entropy_compute = Compute::kBfloat16;
  expect_same_batches({3});
}

// Not yet run: no machine with a device has been at hand.
TEST_F(SameBatches, OnADevice) {
  if (!at::hasCUDA() || at::getNumGPUs() == 0) GTEST_SKIP() << "no CUDA device";
  config_.entropy_device = "cuda:0";
  for (const Compute compute : {Compute::kFloat32, Compute::kBfloat16}) {
    config_.entropy_compute = compute;
    expect_same_batches({1, 4});
    fs::remove_all(folder_ / "cache");
  }
}

void SameBatches::expect_same_batches(const std::vector<int64_t>& numbers_of_threads) {
  config_.threads = 0;
  config_.prefetch = 0;
  const auto expected = texts_of(take(*loader(config_), kSteps));
  ASSERT_EQ(expected.size(), kSteps);
  Rng rng(1, "kill points");
  for (const int64_t threads : numbers_of_threads)
    for (const bool cached : {false, true}) {
      DataConfig config = config_;
      config.threads = threads;
      config.prefetch = threads;
      if (cached)
        config.entropy_cache.folder = folder_ / "cache";  // filled by the first that uses it
      else
        config.entropy_cache.mib = 0;
      std::vector<std::string> seen;
      std::string state;
      while (seen.size() < kSteps) {  // a few runs, each killed at a random step
        const auto stage = loader(config);
        if (!seen.empty()) stage->load(StateReader(state, "state"));
        const size_t until = std::min<size_t>(kSteps, seen.size() + 1 + rng.below(120));
        while (seen.size() < until) seen.push_back(text_of(*stage->next()));
        StateWriter out;
        stage->save(out);
        state = out.json();
      }
      EXPECT_EQ(seen, expected) << threads << " threads" << (cached ? ", cached" : ", live");
    }
}

using Patch = std::vector<int32_t>;  // its ids

// The patches of a batch, without those that are a BOS alone.
template <class Patches>
void add_patches(const Batch& batch, Patches& patches) {
  const int32_t* ids = batch.bytes.const_data_ptr<int32_t>();
  const int32_t* offsets = batch.patches.offsets.const_data_ptr<int32_t>();
  for (int64_t p = 0; p < batch.patches.count; ++p) {
    Patch patch(ids + offsets[p], ids + offsets[p + 1]);
    if (patch != Patch{kBos}) patches.insert(patches.end(), std::move(patch));
  }
}

// Batches of a rank differ from those of one rank alone; what all ranks have consumed together is a beginning of the same text.
TEST_F(SameBatches, RanksThatHandOverToOtherNumbersOfRanksReadTheTextOfOneLiveOrCached) {
  std::string few_lines;
  for (int i = 0; i < 40; ++i)
    few_lines += "{\"text\": \"" +
                 std::string(static_cast<size_t>(7 * i + 1), static_cast<char>('a' + i % 26)) + " and " +
                 std::to_string(i) + "\"}\n";
  const auto few = folder_.write("few.jsonl", few_lines);
  config_.sequence_bytes = 300;  // longer than the room in most batches: many are cut
  size_t generations = 0, cuts = 0, crossings = 0;
  for (uint64_t trial = 0; trial < 6; ++trial) {
    DataConfig config = config_;
    if (trial % 2 == 0)
      config.entropy_cache.mib = 0;
    else
      config.entropy_cache.folder = folder_ / "cache";
    config.threads = static_cast<int64_t>(trial % 3);
    if (trial >= 2)  // and so little text that ranks go into a new epoch of it together
      for (SourceConfig& source : config.sources) source.paths = {few};
    if (trial >= 4) config.batch_patches.reset();  // a budget of bytes alone
    const auto loader_of = [&](Share share, const std::shared_ptr<LoaderMetrics>& metrics = nullptr) {
      return make_patch_loader(config, Pass::kTraining, make_patcher(patching_),
                               make_entropies(config, model_, false), {.share = share, .metrics = metrics});
    };
    Rng rng(trial, "kill points");
    std::multiset<Patch> consumed;
    std::optional<std::string> state;
    for (int generation = 0; generation < 10; ++generation, ++generations) {
      const auto ranks = static_cast<int64_t>(1 + rng.below(3));
      std::vector<StateReader> states;
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const auto metrics = std::make_shared<LoaderMetrics>(config.sources);
        const auto stage = loader_of({.rank = rank, .ranks = ranks}, metrics);
        if (state) stage->load(StateReader(*state, "state"));
        const int64_t epoch = metrics->sources[0].epochs;
        for (uint64_t n = rng.below(15); n > 0; --n) add_patches(*stage->next(), consumed);
        StateWriter out;
        stage->save(out);
        states.emplace_back(out.json(), "state");
        crossings += ranks > 1 && metrics->sources[0].epochs > epoch ? 1 : 0;
        cuts += states.back().integer("pending_pieces") > 0 ? 1 : 0;
      }
      state = hand_over(states).json();
      EXPECT_LT(state->size(), 8192u) << "a state is small";
    }
    // One rank goes on until nothing is missing that another consumed too early.
    const auto rest = loader_of({});
    rest->load(StateReader(*state, "state"));
    for (int i = 0; i < 60; ++i) add_patches(*rest->next(), consumed);

    std::multiset<Patch> expected;
    PatchStage whole(make_sequences(config, Pass::kTraining), {{0, make_patcher(patching_)}},
                     make_entropies(config, model_, false), {.block_bytes = 500});
    while (expected.size() < consumed.size()) {
      const PatchedSequence sequence = *whole.next();
      const auto size = static_cast<int64_t>(sequence.ids.size());
      for (size_t p = 1; p < sequence.starts.size() && expected.size() < consumed.size(); ++p) {
        const int64_t begin = sequence.starts[p];
        const int64_t end = p + 1 < sequence.starts.size() ? sequence.starts[p + 1] : size;
        if (begin < end) expected.emplace(sequence.ids.begin() + begin, sequence.ids.begin() + end);
      }
    }
    EXPECT_GT(consumed.size(), 5000u);
    EXPECT_EQ(consumed, expected) << "trial " << trial;
  }
  EXPECT_GT(crossings, generations / 4) << "several ranks should go into a new epoch between two hand-overs";
  EXPECT_GT(cuts, generations / 4) << "ranks should be stopped inside of sequences, too";
}

TEST_F(SameBatches, PatchesAreThoseOfOneSequenceAtATime) {
  EntropyModelSource alone(model_, {});
  const auto patcher = make_patcher(patching_);
  DataConfig config = config_;
  config.threads = 3;
  config.batch_bytes = 100;  // below a sequence with its neighbour: most batches are one
  config.batch_patches.reset();
  const auto sequences = make_sequences(config, Pass::kTraining);
  PatchStage stage(make_sequences(config, Pass::kTraining), {{0, make_patcher(patching_)}},
                   make_entropies(config, model_, false),
                   {.block_bytes = 500, .threads = 3, .blocks_ahead = 6});
  size_t several = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::vector<std::vector<int32_t>> ids{sequences->next()->ids(true)};
    const PatchedSequence patched = *stage.next();
    ASSERT_EQ(patched.ids, ids[0]);
    ASSERT_EQ(patched.starts, patcher->starts(ids[0], alone.entropies(ids)[0])) << i;
    several += patched.starts.size() > 5 && patched.starts.size() + 5 < ids[0].size() ? 1 : 0;
  }
  EXPECT_GT(several, 300u) << "the threshold should cut some, not all";
}

// An entropy model with the paper's window that has seen some of the text.
EntropyModel trained_a_little(const DataConfig& config) {
  EntropyModelConfig shape;
  shape.dim = 32;
  shape.layers = 2;
  shape.heads = 2;
  torch::manual_seed(1);
  EntropyModel model(shape);
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-2));
  DataConfig data = config;
  data.batch_patches.reset();
  data.batch_bytes = 4096;
  const auto batches = make_byte_loader(data, Pass::kTraining);
  for (int step = 0; step < 40; ++step) {
    const Batch batch = *batches->next();
    optimizer.zero_grad();
    const at::Tensor loss =
        next_id_loss(model->forward(batch), batch).sum / static_cast<double>(batch.num_targets);
    loss.backward();
    optimizer.step();
  }
  freeze(*model);
  return model;
}

TEST_F(SameBatches, TenThousandRealDocuments) {
#ifdef BLT_TEXT
  const char* text = BLT_TEXT;
#else
  GTEST_SKIP() << "there is no file with many documents, or a sanitizer: -DBLT_TEXT=FILE names one to CMake";
  const char* text = "";
#endif
  DataConfig config;
  config.sources.resize(1);
  config.sources[0].paths = {text};
  config.sequence_bytes = 4096;
  config.batch_bytes = 16384;
  config.batch_patches = 3000;
  config.threads = 2;
  config.prefetch = 2;
  const EntropyModel model = trained_a_little(config);
  EntropyModelSource alone(model, {});
  EntropyPatching rule;
  rule.threshold = calibrate_on(config, {EntropyPatching(), {}}, alone).threshold;
  const std::shared_ptr<const Patcher> patcher = make_patcher({rule, {}});
  const auto loader =
      make_patch_loader(config, Pass::kTraining, patcher, make_entropies(config, model, false));
  std::vector<Patch> from_batches;  // that are not compared yet
  size_t compared = 0;
  const auto sequences = make_sequences(config, Pass::kTraining);
  int64_t documents = 0, differences = 0, patches = 0, bytes = 0;
  while (documents < 10000) {
    const Sequence sequence = *sequences->next();
    documents += sequence.ends_document ? 1 : 0;
    bytes += static_cast<int64_t>(sequence.bytes.size());
    const std::vector<std::vector<int32_t>> ids{sequence.ids(true)};
    std::vector<int64_t> starts = patcher->starts(ids[0], alone.entropies(ids)[0]);
    const auto size = static_cast<int64_t>(ids[0].size());
    if (starts.back() != size) starts.push_back(size);
    for (size_t p = 1; p + 1 < starts.size(); ++p, ++patches) {  // without the BOS
      if (compared == from_batches.size()) {
        from_batches.clear();
        compared = 0;
        add_patches(*loader->next(), from_batches);
      }
      const Patch expected(ids[0].begin() + starts[p], ids[0].begin() + starts[p + 1]);
      differences += from_batches[compared++] != expected ? 1 : 0;
    }
  }
  EXPECT_EQ(differences, 0);
  EXPECT_NEAR(static_cast<double>(bytes) / static_cast<double>(patches), kDefaultMeanPatchBytes, 1);
  std::cout << documents << " documents, " << bytes << " bytes, " << patches << " patches, " << differences
            << " differences\n";
}

TEST_F(SameBatches, NoThreadOutlivesTheLoader) {
  take(*loader(config_), 2);
  const size_t before = num_threads();
  for (int trial = 0; trial < 10; ++trial) {
    config_.threads = 3;
    const auto stage = loader(config_);
    take(*stage, static_cast<size_t>(trial));
    if (trial > 0) {
      EXPECT_EQ(num_threads(), before + 4) << "three for entropies, one for batches";
    }
    StateWriter state;
    stage->save(state);
    stage->load(StateReader(state));  // in the middle of its work
    EXPECT_LE(num_threads(), before + 3) << "those that do the state's block again";
  }
  EXPECT_EQ(num_threads(), before);
}

TEST_F(SameBatches, AnErrorInTheDataReachesTheTrainerWithItsPlaceAfterAllBatchesBeforeIt) {
  config_.shuffle_sequences = 0;
  config_.sources.resize(1);
  std::string lines;
  for (int i = 0; i < 300; ++i) lines += "{\"text\": \"some text that is long enough\"}\n";
  config_.sources[0].paths = {folder_.write("broken.jsonl", lines + "{\"text\": 3}\n")};
  config_.threads = 0;
  config_.prefetch = 0;
  const auto count_until_error = [&] {
    const auto stage = loader(config_);
    int batches = 0;
    const std::string message = message_of([&] {
      while (stage->next()) ++batches;
    });
    EXPECT_NE(message.find("broken.jsonl:301: \"text\" is a string in every line"), std::string::npos)
        << message;
    return batches;
  };
  const int batches = count_until_error();
  EXPECT_GT(batches, 5);
  config_.threads = 4;
  config_.prefetch = 4;
  EXPECT_EQ(count_until_error(), batches);
}

// Fails at a sequence with a certain text.
class FailingEntropies : public FakeEntropies {
 public:
  std::vector<SequenceScores> scores(std::span<const std::vector<int32_t>> sequences) override {
    if (++asked_ == 7) throw Error("the device is lost");
    return FakeEntropies::scores(sequences);
  }

 private:
  std::atomic<int> asked_{0};
};

TEST_F(SameBatches, AnErrorOfTheEntropyModelReachesTheTrainer) {
  config_.threads = 4;
  EntropyPatching rule;
  rule.threshold = 2.0;
  const auto stage = make_patch_loader(config_, Pass::kTraining, make_patcher({rule, {}}),
                                       std::make_shared<FailingEntropies>());
  const std::string message = message_of([&] { take(*stage); });
  EXPECT_EQ(message.find("entropies of "), 0u) << message;
  EXPECT_NE(message.find(" sequences, the first " + (folder_ / "").string()), std::string::npos) << message;
  EXPECT_NE(message.find(".jsonl:"), std::string::npos) << message;
  EXPECT_NE(message.find(": the device is lost"), std::string::npos) << message;
}

class LibTorchFails : public FakeEntropies {
 public:
  std::vector<SequenceScores> scores(std::span<const std::vector<int32_t>>) override {
    TORCH_CHECK(false, "no memory is left");
  }
};

TEST_F(SameBatches, AnErrorOfLibTorchNamesTheHeldOutText) {
  config_.validation.resize(1);
  config_.validation[0].paths = {
      folder_.write("held_out.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n")};
  EntropyPatching rule;
  rule.threshold = 2.0;
  for (const int64_t threads : {0, 2}) {
    config_.threads = threads;
    const auto stage = make_patch_loader(config_, Pass::kValidation, make_patcher({rule, {}}),
                                         std::make_shared<LibTorchFails>());
    const std::string path = (folder_ / "held_out.jsonl").string();
    EXPECT_MESSAGE(take(*stage), "no memory is left (entropies of 2 sequences, the first " + path +
                                     ":1, the last " + path + ":2)");
  }
}

}  // namespace
}  // namespace blt
