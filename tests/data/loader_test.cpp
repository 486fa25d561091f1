// The chain as a config describes it.
#include "blt/data/loader.h"

#include <gtest/gtest.h>

#include <set>

#include "blt/base/config_io.h"
#include "blt/base/error.h"
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
  auto source = std::make_shared<FakeEntropies>();
  const auto loader = make_patch_loader(config, Pass::kTraining, make_patcher({rule, {}}), source);
  take(*loader, 100);
  EXPECT_EQ(source->num_sequences, 40);
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
  EXPECT_MESSAGE(parse_config<DataConfig>("sources: [{weight: 1}]", "run.yaml"), "sources.0.paths");
  EXPECT_MESSAGE(parse_config<DataConfig>("seed: 3", "run.yaml"), "at least one source");
}

}  // namespace
}  // namespace blt
