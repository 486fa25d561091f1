#include "blt/eval/evaluate.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <string>
#include <utility>

#include "blt/data/entropy_model_source.h"
#include "blt/eval/bits_per_byte.h"
#include "blt/model/blt.h"
#include "blt/model/entropy_model.h"
#include "blt/ops/cross_entropy.h"
#include "eval/windows.h"
#include "model/small_model.h"

namespace blt {
namespace {

// Documents in memory, cut into sequences.
class TextStage : public Stage<Sequence> {
 public:
  TextStage(const std::vector<std::string>& documents, size_t sequence_bytes) {
    for (const std::string& document : documents)
      for (size_t at = 0; at < document.size(); at += sequence_bytes)
        sequences_.push_back(
            {document.substr(at, sequence_bytes), at == 0, at + sequence_bytes >= document.size()});
  }
  std::optional<Sequence> next() override {
    return next_ < sequences_.size() ? std::optional(sequences_[next_++]) : std::nullopt;
  }
  void save(StateWriter&) const override {}
  void load(const StateReader&) override {}

 private:
  std::vector<Sequence> sequences_;
  size_t next_ = 0;
};

class BatchStage : public Stage<Batch> {
 public:
  explicit BatchStage(std::vector<Batch> batches) : batches_(std::move(batches)) {}
  std::optional<Batch> next() override {
    return next_ < batches_.size() ? std::optional(batches_[next_++]) : std::nullopt;
  }
  void save(StateWriter&) const override {}
  void load(const StateReader&) override {}

 private:
  std::vector<Batch> batches_;
  size_t next_ = 0;
};

at::Tensor uniform(const Batch& batch) { return torch::zeros({batch.bytes.size(0), kVocabulary}); }

// Gives the byte that follows a probability of 1/2 where the id before it is even, else 1/8: every byte's bits
// can be told by eye.
at::Tensor by_parity(const Batch& batch) {
  at::Tensor p = torch::full({batch.bytes.size(0), kVocabulary}, -40.0);
  for (int64_t i = 0; i < batch.bytes.size(0); ++i) {
    const auto target = batch.targets[i].item<int64_t>();
    const double chance = batch.bytes[i].item<int64_t>() % 2 == 0 ? 0.5 : 0.125;
    p[i][0] = std::log(1 - chance);
    if (target != kIgnore) p[i][target] = std::log(chance);
  }
  return p;
}

std::string random_text(uint64_t seed, size_t size) {
  std::mt19937_64 rng(seed);
  std::string text;
  for (size_t i = 0; i < size; ++i) text += "abc de\n"[rng() % 7];
  return text;
}

TEST(BitsPerByte, IsNllOverBytesTimesLn2) {
  EXPECT_DOUBLE_EQ(bits_per_byte(std::log(2.0) * 30, 10), 3.0);
  EXPECT_TRUE(std::isnan(bits_per_byte(0.0, 0)));
}

TEST(BitsPerByte, OfBatchesCountsBytesButNoSpecialIds) {
  // BOS a b EOS, and BOS c: the targets are a, b, (EOS) and c. The ids before them are 1, 101 + 4 and 1.
  const auto id = [](char c) { return kByteOffset + c; };
  const Batch first = Batch::pack_bytes({{{kBos, id('a'), id('b'), kEos}, {}, {}}});
  const Batch second = Batch::pack_bytes({{{kBos, id('c')}, {}, {}}});
  ASSERT_EQ(first.num_targets, 3);
  ASSERT_EQ(first.num_byte_targets, 2);
  BatchStage batches({first, second});
  // BOS is odd: 3 bits for a and c. 'a' + 4 = 101 is odd: 3 bits for b. 'b' + 4 = 102 is even, but EOS does not count.
  EXPECT_NEAR(byte_nll(by_parity, batches).bits_per_byte(), 3.0, 1e-6);
  BatchStage again({first, second});
  EXPECT_NEAR(byte_nll(uniform, again).bits_per_byte(), std::log2(260.0), 1e-6);
  BatchStage none({});
  EXPECT_TRUE(std::isnan(byte_nll(uniform, none).bits_per_byte()));
}

TEST(Evaluate, CountsEachByteOnceHoweverDocumentsAreCut) {
  const std::vector<std::string> documents = {random_text(1, 1000), "x", random_text(2, 77)};
  for (const size_t sequence_bytes : {1, 10, 77, 5000})
    for (const int64_t context : {0, 5, 300}) {
      TextStage text(documents, sequence_bytes);
      const Evaluation result =
          evaluate({.forward = uniform}, text, {.context_bytes = context, .batch_bytes = 64});
      EXPECT_EQ(result.bytes, 1078);
      EXPECT_EQ(result.documents, 3);
      EXPECT_NEAR(result.bits_per_byte, std::log2(260.0), 1e-6);
      EXPECT_FALSE(result.entropy_model_bits_per_byte.has_value());
      EXPECT_FALSE(result.patches.has_value());
    }
  TextStage text({"ab"}, 10);  // BOS and 'a' + 4 are odd
  EXPECT_NEAR(evaluate({.forward = by_parity}, text).bits_per_byte, 3.0, 1e-6);
  TextStage even({"bbb"}, 10);  // 3 + 1 + 1 bits
  EXPECT_NEAR(evaluate({.forward = by_parity}, even).bits_per_byte, 5.0 / 3.0, 1e-6);
}

TEST(Windows, SeeTheEarlierBytesOfTheirDocumentAlone) {
  const std::vector<std::string> documents = {random_text(3, 50), random_text(4, 9)};
  TextStage text(documents, 8);
  Windows windows(text, 20);
  std::string scored;
  size_t begin = 0;  // of the document
  while (const auto window = windows.next()) {
    if (window->starts_document) begin = scored.size();
    ASSERT_EQ(window->ids[0], kBos);
    std::string context, own;
    for (size_t i = 1; i < window->ids.size(); ++i)
      (static_cast<int64_t>(i) < window->first ? context : own) +=
          static_cast<char>(window->ids[i] - kByteOffset);
    const std::string before = scored.substr(begin);
    EXPECT_EQ(context, before.substr(before.size() - std::min<size_t>(20, before.size())));
    EXPECT_GT(own.size(), 0u);
    EXPECT_LE(own.size(), 8u);
    scored += own;
  }
  EXPECT_EQ(scored, documents[0] + documents[1]);
}

class EvaluateModels : public testing::Test {
 protected:
  EvaluateModels() {
    torch::manual_seed(31);
    model_ = Blt(small_config());
    model_->eval();
    entropy_model_ = EntropyModel(small_entropy_config());
    freeze(*entropy_model_);
    PatchingConfig config;
    std::get<EntropyPatching>(config.rule).threshold = threshold_ = median_entropy();
    patcher_ = make_patcher(config);
  }

  EvaluatedModel blt() {
    return {.forward = [this](const Batch& batch) { return model_->forward(batch); },
            .patcher = patcher_,
            .entropies = std::make_shared<EntropyModelSource>(entropy_model_, EntropyModelSource::Options())};
  }

  // So that about half of the bytes start patches.
  float median_entropy() {
    const Batch batch = Batch::pack_bytes({{Sequence{random_text(6, 200), true, true}.ids(false), {}, {}}});
    return entropy_model_->scores(batch.bytes, batch.targets, batch.documents).entropy.median().item<float>();
  }

  float threshold_ = 0;
  Blt model_{nullptr};
  EntropyModel entropy_model_{nullptr};
  std::shared_ptr<const Patcher> patcher_;
};

TEST_F(EvaluateModels, IsTheSumOverSequencesComputedByHand) {
  const std::string text = random_text(5, 230);
  TextStage stage({text}, 100);
  const Evaluation result = evaluate(blt(), stage);
  double nll = 0, entropy_nll = 0;
  int64_t patches = 0;
  const torch::NoGradGuard no_grad;
  for (size_t at = 0; at < text.size(); at += 100) {
    PatchedSequence sequence{Sequence{text.substr(at, 100), false, false}.ids(false), {}, {}};
    const Batch bytes = Batch::pack_bytes({sequence});
    const auto scores = entropy_model_->scores(bytes.bytes, bytes.targets, bytes.documents);
    const auto size = static_cast<int64_t>(sequence.ids.size());
    sequence.starts = {0, 1};
    for (int64_t i = 1; i < size; ++i)
      if (scores.entropy[i].item<float>() > threshold_) sequence.starts.push_back(i + 1);
    for (const int64_t start : sequence.starts) patches += start > 0 && start < size ? 1 : 0;
    const Batch batch = Batch::pack({sequence});
    const at::Tensor p = model_->forward(batch).log_softmax(-1);
    for (int64_t i = 0; i + 1 < size; ++i) nll -= p[i][sequence.ids[i + 1]].item<double>();
    entropy_nll += scores.nll.sum().item<double>();
  }
  EXPECT_NEAR(result.bits_per_byte, nll / 230 / std::log(2.0), 1e-5);
  ASSERT_TRUE(result.entropy_model_bits_per_byte && result.patches);
  EXPECT_NEAR(*result.entropy_model_bits_per_byte, entropy_nll / 230 / std::log(2.0), 1e-5);
  EXPECT_EQ(result.patches->patches, patches);
  EXPECT_EQ(result.patches->bytes, 230);
  EXPECT_GT(patches, 10);
  EXPECT_LT(patches, 229);
  EXPECT_EQ(result.sequences, 3);
}

TEST_F(EvaluateModels, DoesNotDependOnHowManySequencesAreReadAtOnce) {
  const std::vector<std::string> documents = {random_text(6, 300), random_text(7, 45), random_text(8, 1)};
  TextStage one(documents, 64), many(documents, 64);
  const Evaluation alone = evaluate(blt(), one, {.context_bytes = 30, .batch_bytes = 1});
  const Evaluation packed = evaluate(blt(), many, {.context_bytes = 30, .batch_bytes = 100000});
  EXPECT_NEAR(alone.bits_per_byte, packed.bits_per_byte, 1e-5);
  EXPECT_EQ(*alone.entropy_model_bits_per_byte, *packed.entropy_model_bits_per_byte);
  EXPECT_EQ(alone.patches->patches, packed.patches->patches);
}

TEST_F(EvaluateModels, ObservesWhatItCounts) {
  const std::string text = random_text(9, 150);
  TextStage stage({text}, 40);
  std::string seen;
  double nll = 0;
  int64_t patches = 0;
  const Evaluation result = evaluate(
      blt(), stage, {.context_bytes = 25, .batch_bytes = 100, .observe = [&](const ScoredSequence& s) {
                       const auto size = static_cast<int64_t>(s.ids.size());
                       ASSERT_EQ(s.logits.size(0), size);
                       ASSERT_EQ(s.logits.size(1), kVocabulary);
                       ASSERT_EQ(s.nll.numel(), size);
                       ASSERT_EQ(static_cast<int64_t>(s.entropies.size()), size);
                       for (int64_t i = s.first; i < size; ++i)
                         seen += static_cast<char>(s.ids[i] - kByteOffset);
                       for (int64_t i = 0; i + 1 < s.first; ++i) EXPECT_EQ(s.nll[i].item<float>(), 0.0f);
                       nll += s.nll.sum(torch::kDouble).item<double>();
                       for (const int64_t start : s.starts)
                         patches += start >= s.first && start < size ? 1 : 0;
                     }});
  EXPECT_EQ(seen, text);
  EXPECT_NEAR(bits_per_byte(nll, 150), result.bits_per_byte, 1e-9);
  EXPECT_EQ(patches, result.patches->patches);
}

TEST_F(EvaluateModels, MoreContextIsSeen) {
  const std::string text = random_text(10, 200);
  TextStage whole({text}, 200), cut({text}, 20), overlapping({text}, 20);
  const double all = evaluate(blt(), whole).bits_per_byte;
  const double none = evaluate(blt(), cut).bits_per_byte;
  const double context = evaluate(blt(), overlapping, {.context_bytes = 200}).bits_per_byte;
  EXPECT_NEAR(context, all, 1e-5);  // every byte sees its whole document
  EXPECT_GT(std::abs(none - all), 1e-4);
}

TEST_F(EvaluateModels, ReadsAnEntropyModelAlone) {
  const std::string text = random_text(11, 90);
  TextStage stage({text}, 1000);
  at::Tensor entropies;
  const EvaluatedModel model{
      .forward = [this](const Batch& batch) { return entropy_model_->forward(batch); }};
  const Evaluation result = evaluate(model, stage, {.observe = [&](const ScoredSequence& s) {
                                       entropies = torch::tensor(s.entropies);
                                       EXPECT_TRUE(s.starts.empty());
                                     }});
  const Batch batch = Batch::pack_bytes({{Sequence{text, true, true}.ids(false), {}, {}}});
  const auto scores = entropy_model_->scores(batch.bytes, batch.targets, batch.documents);
  EXPECT_TRUE(torch::equal(entropies, scores.entropy));
  EXPECT_NEAR(result.bits_per_byte, bits_per_byte(scores.nll.sum(torch::kDouble).item<double>(), 90), 1e-9);
}

TEST_F(EvaluateModels, WantsEntropiesForAPatcherThatReadsThem) {
  EvaluatedModel model = blt();
  model.entropies = nullptr;
  TextStage stage({"text"}, 10);
  EXPECT_THROW(evaluate(model, stage), c10::Error);
}

TEST_F(EvaluateModels, CountsPatchesOfOtherRules) {
  PatchingConfig config;
  config.rule = StaticPatching{.patch_bytes = 4};
  EvaluatedModel model = blt();
  model.entropies = nullptr;
  model.patcher = make_patcher(config);
  TextStage stage({std::string(11, 'x')}, 1000);
  const Evaluation result = evaluate(model, stage);
  // BOS | x x x | x x x x | x x x x: the rule's first patch of four is split behind the BOS.
  EXPECT_EQ(result.patches->patches, 3);
  EXPECT_DOUBLE_EQ(result.patches->mean_patch_bytes(), 11.0 / 3.0);
}

}  // namespace
}  // namespace blt
