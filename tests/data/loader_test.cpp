// The chain as a config describes it.
#include "blt/data/loader.h"

#include <ATen/Context.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>

#include "archives.h"
#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "blt/data/documents.h"
#include "blt/data/entropy_cache.h"
#include "fakes.h"
#include "message.h"
#include "temporary_folder.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;

class Loader : public testing::Test {
 protected:
  Loader() {
    std::string lines;
    for (int i = 0; i < 40; ++i)
      lines += "{\"text\": \"document number " + std::to_string(1000 + i) + "\"}\n";
    config.sources.resize(1);
    config.sources[0].paths = {folder.write("train.jsonl", lines)};
    config.validation.resize(2);
    config.validation[0].paths = {folder.write("a.txt", std::string(100, 'a'))};
    config.validation[1].paths = {folder.write("b.txt", std::string(33, 'b'))};
    config.sequence_bytes = 30;
    config.batch_bytes = 90;
  }
  TemporaryFolder folder;
  DataConfig config;
};

TEST_F(Loader, ValidationIsAllTextOnceInOrder) {
  const auto sequences = make_sequences(config, Pass::kValidation);
  std::string text;
  for (const Sequence& sequence : take(*sequences)) text += sequence.bytes;
  EXPECT_EQ(text, std::string(100, 'a') + std::string(33, 'b'));
  int64_t bytes = 0;
  for (const Batch& batch : take(*make_byte_loader(config, Pass::kValidation)))
    bytes += batch.num_byte_targets;
  EXPECT_EQ(bytes, 133);
}

TEST_F(Loader, EveryTrainingPassHasEveryDocumentOnceInAnotherOrder) {
  config.shuffle_sequences = 1000;  // more than there are: a block does not reach into the next pass
  const auto stage = make_sequences(config, Pass::kTraining);
  std::vector<std::vector<std::string>> passes;
  for (int pass = 0; pass < 3; ++pass) {
    passes.push_back(texts_of(take(*stage, 40)));
    EXPECT_EQ(std::set<std::string>(passes.back().begin(), passes.back().end()).size(), 40u);
  }
  EXPECT_NE(passes[0], passes[1]);
  EXPECT_NE(passes[1], passes[2]);
  EXPECT_EQ(texts_of(take(*make_sequences(config, Pass::kTraining), 40)), passes[0]);
  config.seed = 2;
  EXPECT_NE(texts_of(take(*make_sequences(config, Pass::kTraining), 40)), passes[0]);
}

// Sequences of documents that are cut, tails that open the next batch, and several files and sources.
TEST_F(Loader, BatchesSayWhereTheirTextWasRead) {
  std::string long_text;
  for (int i = 0; long_text.size() < 1000; ++i) long_text += std::to_string(i) + ",";
  const auto folder_of_two = folder.path() / "two";
  std::filesystem::create_directory(folder_of_two);
  folder.write("two/a.txt", long_text.substr(0, 70));
  folder.write("two/b.txt", long_text);
  config.sources.resize(2);
  config.sources[1].paths = {folder_of_two};
  PatchingConfig patching{.rule = StaticPatching{}};
  std::set<std::string> names;
  for (const bool patched : {false, true}) {
    const auto loader = patched ? make_patch_loader(config, Pass::kTraining, make_patcher(patching), nullptr)
                                : make_byte_loader(config, Pass::kTraining);
    for (const Batch& batch : take(*loader, 30)) {
      ASSERT_EQ(static_cast<int64_t>(batch.places.size()), batch.documents.count);
      const auto offsets = batch.documents.offsets.accessor<int32_t, 1>();
      const auto ids = batch.bytes.accessor<int32_t, 1>();
      for (int64_t d = 0; d < batch.documents.count; ++d) {
        const TextPlace& place = batch.places[static_cast<size_t>(d)];
        std::string text;
        for (int64_t i = offsets[d]; i < offsets[d + 1]; ++i)
          if (ids[i] >= kByteOffset) text += static_cast<char>(ids[i] - kByteOffset);
        const std::string whole = place.source == 0 ? "document number " + std::to_string(999 + place.line)
                                  : place.file == 0 ? long_text.substr(0, 70)
                                                    : long_text;
        EXPECT_EQ(text, whole.substr(static_cast<size_t>(place.offset), text.size()));
        names.insert(name_of(place, config));
      }
    }
  }
  EXPECT_EQ(names.count((folder.path() / "train.jsonl").string() + ":3"), 1u);
  EXPECT_EQ(names.count((folder_of_two / "a.txt").string()), 1u);
  EXPECT_EQ(names.count((folder_of_two / "b.txt").string() + " from byte 30 on"), 1u);
  std::filesystem::remove_all(folder_of_two);
  EXPECT_EQ(name_of({.source = 1, .file = 1, .line = 0, .offset = 5}, config),
            "source 1, file 1 from byte 5 on");
}

TEST_F(Loader, TrainingBatchesHaveOneSizeWhereTheConfigSaysSo) {
  config.batch_bytes = 150;
  config.batch_patches = 60;
  config.batch_sequences = 12;
  const std::shared_ptr<const Patcher> patcher = make_patcher({SpacePatching{}, 5});
  int64_t text = 0;
  for (const Batch& batch : take(*make_patch_loader(config, Pass::kTraining, patcher, nullptr), 20)) {
    EXPECT_EQ(batch.bytes.size(0), 150);
    EXPECT_EQ(batch.patches.count, 60);
    EXPECT_EQ(batch.documents.count, 12);
    text += batch.num_byte_targets;
  }
  EXPECT_GT(text, 20 * 75);
  for (const Batch& batch : take(*make_byte_loader(config, Pass::kTraining), 20)) {
    EXPECT_EQ(batch.bytes.size(0), 150);
    EXPECT_EQ(batch.documents.count, 12);
    EXPECT_EQ(batch.patches.count, 0);
  }
  for (const Batch& batch : take(*make_patch_loader(config, Pass::kValidation, patcher, nullptr)))
    EXPECT_EQ(batch.num_filler_documents, 0);
  config.batch_patches.reset();
  EXPECT_MESSAGE(make_patch_loader(config, Pass::kTraining, patcher, nullptr), "need data.batch_patches too");
}

TEST_F(Loader, TrainingCanKeepTheOrder) {
  config.shuffle_sequences = 0;
  const auto texts = texts_of(take(*make_sequences(config, Pass::kTraining), 41));
  EXPECT_EQ(texts[0], "[document number 1000]");
  EXPECT_EQ(texts[39], "[document number 1039]");
  EXPECT_EQ(texts[40], texts[0]);
}

TEST_F(Loader, EntropiesOfAPassAreComputedOnce) {
  EntropyPatching rule;
  rule.threshold = 2.0;
  config.entropy_batch_bytes = 200;  // a pass is several blocks
  config.threads = 1;                // two may compute a sequence at the same time
  auto source = std::make_shared<FakeEntropies>();
  const auto metrics = std::make_shared<LoaderMetrics>(config.sources);
  const CachedEntropies cached(source, "fake", EntropyCache::in_memory(1 << 20));
  auto loader = make_patch_loader(config, Pass::kTraining, make_patcher({rule, {}}),
                                  cached.counted_in(metrics), {.metrics = metrics});
  take(*loader, 100);
  EXPECT_EQ(source->num_sequences, 40);
  EXPECT_EQ(metrics->cache_misses, 40);
  EXPECT_GT(metrics->cache_hits, 100);
  loader.reset();  // it runs ahead
  const int64_t hits = metrics->cache_hits;
  take(*make_patch_loader(config, Pass::kTraining, make_patcher({rule, {}}), cached.counted_in(nullptr)), 10);
  EXPECT_EQ(source->num_sequences, 40) << "the cache is the same";
  EXPECT_EQ(metrics->cache_hits, hits) << "but not who counts";
}

TEST_F(Loader, CountsWhatItDoes) {
  const auto metrics = std::make_shared<LoaderMetrics>(config.sources);
  const auto loader = make_patch_loader(config, Pass::kTraining, make_patcher({SpacePatching(), {}}), nullptr,
                                        {.metrics = metrics});
  take(*loader, 50);
  std::map<std::string, double> numbers;
  for (const auto& [name, value] : metrics->take()) numbers[name] = value;
  for (const char* name : {"read_bytes_per_s", "patch_bytes_per_s", "pack_bytes_per_s"})
    EXPECT_GT(numbers[name], 0) << name;
  EXPECT_GE(numbers["wait_s"], 0);
  ASSERT_TRUE(numbers.contains("blocks_ready") && numbers.contains("batches_ready"));
  EXPECT_LE(numbers["batches_ready"], static_cast<double>(config.prefetch));
  EXPECT_GT(numbers["mean_patch_bytes"], 4);
  EXPECT_LT(numbers["mean_patch_bytes"], 9);
  EXPECT_GE(numbers["source0_documents"], 150);
  EXPECT_GE(numbers["source0_epochs"], 3);
  EXPECT_EQ(numbers["source0_skipped"], 0);
}

TEST(LoaderMetrics, GivesRatesSharesAndMeansOfWhatHappenedSinceTheLastTime) {
  LoaderMetrics metrics({});
  const auto taken = [&] {
    std::map<std::string, double> numbers;
    for (const auto& [name, value] : metrics.take()) numbers[name] = value;
    return numbers;
  };
  metrics.read.add(3000, std::chrono::milliseconds(2));
  metrics.batches_ready.look(2);
  metrics.batches_ready.look(4);
  metrics.cache_hits = 1;
  metrics.cache_misses = 3;
  const auto first = taken();
  EXPECT_DOUBLE_EQ(first.at("read_bytes_per_s"), 1.5e6);
  EXPECT_DOUBLE_EQ(first.at("batches_ready"), 3);
  EXPECT_DOUBLE_EQ(first.at("cache_hits"), 0.25);
  metrics.batches_ready.look(0);
  const auto second = taken();
  EXPECT_DOUBLE_EQ(second.at("batches_ready"), 0);
  EXPECT_FALSE(second.contains("read_bytes_per_s") || second.contains("cache_hits")) << "nothing happened";
}

TEST_F(Loader, PatchesGrowAsTheScheduleSays) {
  FakeEntropies source;
  EntropyPatching rule;
  rule.threshold = 3.2;
  const PatchingConfig patching{rule, {}};
  EXPECT_EQ(make_patch_schedule(config, patching, nullptr).size(), 1u);
  config.patch_length = PatchLengthConfig{.mean_patch_bytes = 2.0, .text_bytes = 1000, .stages = 2};
  const PatchSchedule schedule = make_patch_schedule(config, patching, &source);
  ASSERT_EQ(schedule.size(), 3u);
  EXPECT_EQ(schedule[1].text_bytes, 500);
  EXPECT_EQ(schedule[2].text_bytes, 1000);
  const EntropySample sample = entropy_sample(config, source, 2000);
  double last = 0;
  for (const PatcherFrom& stage : schedule) {
    PatchCount count;
    for (size_t i = 0; i < sample.ids.size(); ++i)
      count.add(sample.ids[i], stage.patcher->starts(sample.ids[i], sample.entropies[i]));
    EXPECT_GT(count.mean_patch_bytes(), last);
    last = count.mean_patch_bytes();
  }
  config.patch_length->mean_patch_bytes = 20;
  EXPECT_MESSAGE(make_patch_schedule(config, patching, &source), "patches grow");
  EXPECT_MESSAGE(make_patch_schedule(config, {SpacePatching(), {}}, &source), "this patching has none");
}

TEST_F(Loader, BrokenDocumentsAreSkippedWhereTheConfigSaysSo) {
  std::string lines = "{\"text\": \"first\"}\n{\"text\": 3}\nnot JSON\n{\"text\": \"last\"}\n";
  folder.write("broken/a.jsonl", lines);
  folder.write("broken/b.jsonl.gz", gzip(lines).substr(0, 40));
  folder.write("broken/c.txt", "text");
  config.sources[0].paths = {folder / "broken"};
  config.shuffle_sequences = 0;
  EXPECT_MESSAGE(take(*make_sequences(config, Pass::kTraining), 5), "a.jsonl:2: \"text\" is a string");
  config.sources[0].on_error = OnDataError::kSkip;
  const auto metrics = std::make_shared<LoaderMetrics>(config.sources);
  const auto stage = make_sequences(config, Pass::kTraining, metrics);
  const auto texts = texts_of(take(*stage, 5));
  EXPECT_EQ(texts[0], "[first]");
  EXPECT_EQ(texts[1], "[last]");
  EXPECT_EQ(texts[texts.size() - 2], "[first]") << "the next epoch";
  EXPECT_GE(metrics->sources[0].skipped, 3);
}

TEST_F(Loader, CalibratesOnTrainingText) {
  FakeEntropies source;
  EntropyPatching rule;
  rule.mean_patch_bytes = 3.0;
  const Calibration result = calibrate_on(config, {rule, {}}, source, 2000);
  EXPECT_NEAR(result.mean_patch_bytes, 3.0, 0.05 * 3.0);  // what calibrate() promises: 40 documents are few
  EXPECT_GE(result.count.bytes, 2000);
  EXPECT_LT(result.count.bytes, 2030);
  rule.mean_patch_bytes.reset();
  EXPECT_NEAR(calibrate_on(config, {rule, {}}, source, 2000).mean_patch_bytes, kDefaultMeanPatchBytes,
              0.05 * kDefaultMeanPatchBytes);
}

// Not yet run: no machine with a device has been at hand.
TEST_F(Loader, HandsBatchesOutOnADevice) {
  if (!at::hasCUDA()) GTEST_SKIP() << "there is no CUDA device";
  const auto here = make_byte_loader(config, Pass::kTraining);
  const auto there = make_byte_loader(config, Pass::kTraining, {.device = at::kCUDA});
  for (int i = 0; i < 50; ++i) {
    const Batch expected = *here->next(), batch = *there->next();
    EXPECT_TRUE(batch.bytes.is_cuda() && batch.targets.is_cuda() && batch.documents.offsets.is_cuda());
    EXPECT_TRUE(at::equal(batch.bytes.cpu(), expected.bytes)) << i;
    EXPECT_TRUE(at::equal(batch.targets.cpu(), expected.targets)) << i;
    EXPECT_TRUE(at::equal(batch.documents.offsets.cpu(), expected.documents.offsets)) << i;
  }
}

// Not yet run: no machine with a device has been at hand. Each batch is dropped while work that reads it still waits behind other work.
TEST_F(Loader, MemoryOfABatchIsNotTakenWhileWorkThatReadsItIsToCome) {
  if (!at::hasCUDA()) GTEST_SKIP() << "there is no CUDA device";
  const auto here = make_byte_loader(config, Pass::kTraining);
  const auto there = make_byte_loader(config, Pass::kTraining, {.device = at::kCUDA});
  at::Tensor busy = at::ones({4096, 4096}, at::TensorOptions().device(at::kCUDA));
  std::vector<at::Tensor> expected, sums;
  for (int i = 0; i < 50; ++i) {
    expected.push_back(here->next()->bytes.sum());
    const std::optional<Batch> batch = there->next();
    busy = busy.matmul(busy).clamp(0, 1);
    sums.push_back(batch->bytes.sum());
  }
  for (size_t i = 0; i < sums.size(); ++i) EXPECT_TRUE(at::equal(sums[i].cpu(), expected[i])) << i;
}

// The model that is given stays as it is: a run saves it.
TEST_F(Loader, EntropiesAreComputedInTheTypeThatTheConfigSays) {
  EntropyModelConfig shape;
  shape.dim = 32;
  shape.layers = 1;
  shape.heads = 2;
  EntropyModel model(shape);
  freeze(*model);
  const std::vector<std::vector<int32_t>> ids{{kBos, 70, 71, 72, 73, 74}};
  const auto exact = make_entropies(config, model, false)->entropies(ids)[0];
  EXPECT_EQ(exact, EntropyModelSource(model, {}).entropies(ids)[0]);
  config.entropy_compute = Compute::kBfloat16;
  const auto rounded = make_entropies(config, model, false)->entropies(ids)[0];
  EXPECT_NE(rounded, exact);
  for (size_t i = 0; i < exact.size(); ++i) EXPECT_NEAR(rounded[i], exact[i], 0.05);
  EXPECT_EQ(model->parameters()[0].scalar_type(), at::kFloat);
}

TEST_F(Loader, ADeviceForEntropiesThatIsNotThereIsAClearError) {
  config.entropy_device = "cuda:77";
  EXPECT_EQ(entropy_threads(config), 2);
  EXPECT_MESSAGE(entropy_device(config), "data.entropy_device: cuda:77: ");
  config.threads = 5;
  EXPECT_EQ(entropy_threads(config), 5);
}

TEST_F(Loader, MissingSourcesAreClearErrors) {
  DataConfig none;
  EXPECT_MESSAGE(make_sequences(none, Pass::kTraining), "name some under data.sources");
  EXPECT_MESSAGE(make_sequences(none, Pass::kValidation), "name some under data.validation");
  config.sources[0].paths = {"-"};
  EXPECT_MESSAGE(make_sequences(config, Pass::kTraining), "standard input can be read only once");
}

TEST(DataConfig, ReadsItsSectionAndReportsAllMistakes) {
  const DataConfig config = parse_config<DataConfig>(
      "sources:\n- paths: [a.txt, b]\n- {paths: [c.jsonl], weight: 0.5, text_field: body, format: jsonl}\n"
      "batch_patches: 512\n",
      "run.yaml");
  ASSERT_EQ(config.sources.size(), 2u);
  EXPECT_EQ(config.sources[1].format, DocumentFormat::kJsonLines);
  EXPECT_EQ(config.sources[1].text_field, "body");
  EXPECT_EQ(config.batch_patches, 512);

  const std::string message = message_of([] {
    parse_config<DataConfig>("sources:\n- {weight: 0, format: csv}\nsequence_bytes: 64\nbatch_bytes: 32\n",
                             "run.yaml");
  });
  EXPECT_NE(message.find("sources.0.weight"), std::string::npos) << message;
  EXPECT_NE(message.find("sources.0.format"), std::string::npos) << message;
  EXPECT_MESSAGE(
      parse_config<DataConfig>("sources: [{weight: 1}]\nsequence_bytes: 64\nbatch_bytes: 32\n", "run.yaml"),
      "batch_bytes: 32 is less than sequence_bytes, 64");
  EXPECT_MESSAGE(parse_config<DataConfig>("sources: [{paths: [a]}]\nbatch_sequences: 8\n", "run.yaml"),
                 "run.yaml:2: batch_sequences: batches of one size need batch_bytes too");
  EXPECT_MESSAGE(
      parse_config<DataConfig>(
          "sources: [{paths: [a]}]\nsequence_bytes: 64\nbatch_bytes: 640\nbatch_sequences: 9\n", "run.yaml"),
      "run.yaml:4: batch_sequences: filler cannot make up all batches: 9 sequences are too few");
  EXPECT_MESSAGE(parse_config<DataConfig>("sources: [{weight: 1}]", "run.yaml"), "sources.0.paths");
  EXPECT_MESSAGE(parse_config<DataConfig>("entropy_device: gpu", "run.yaml"),
                 "entropy_device: must be cpu, cuda");
  EXPECT_MESSAGE(parse_config<DataConfig>("seed: 3", "run.yaml"), "at least one source");
}

}  // namespace
}  // namespace blt
