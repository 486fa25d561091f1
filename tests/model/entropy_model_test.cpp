#include "blt/model/entropy_model.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstring>

#include "blt/model/parameters.h"
#include "blt/ops/cross_entropy.h"
#include "blt/patching/patcher.h"
#include "model/small_model.h"

namespace blt {
namespace {

EntropyModel frozen_model(const EntropyModelConfig& config, uint64_t seed) {
  torch::manual_seed(seed);
  EntropyModel model(config);
  freeze(*model);
  return model;
}

std::vector<EntropyModelConfig> configs() {
  EntropyModelConfig windowed = small_entropy_config();
  EntropyModelConfig full = windowed;
  full.window = 0;
  full.kv_heads = 1;
  EntropyModelConfig with_ngrams = windowed;
  with_ngrams.ngram = {.sizes = {3, 4}, .rows = 64, .functions = 1};
  EntropyModelConfig wide = windowed;  // widths that fill whole SIMD registers and leave a rest
  wide.dim = 72;
  wide.heads = 6;
  wide.ffn_dim = 200;
  return {windowed, full, with_ngrams, wide};
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.dtype() == b.dtype() &&
         std::memcmp(a.contiguous().data_ptr(), b.contiguous().data_ptr(), a.nbytes()) == 0;
}

std::vector<int64_t> starts(const PatchedSequence& document, const at::Tensor& entropies, double threshold) {
  PatchingConfig config;
  std::get<EntropyPatching>(config.rule).threshold = threshold;
  const auto patcher = make_patcher(config);
  const at::Tensor values = entropies.contiguous();
  return patcher->starts(document.ids, {values.const_data_ptr<float>(), static_cast<size_t>(values.numel())});
}

TEST(EntropyModel, EntropiesAndPatchesDoNotDependOnPackingBitForBit) {
  std::mt19937_64 rng(21);
  for (const EntropyModelConfig& config : configs()) {
    EntropyModel model = frozen_model(config, 20);
    for (int round = 0; round < 4; ++round) {
      std::vector<int64_t> lengths;
      for (int i = 0; i < 10; ++i) lengths.push_back(static_cast<int64_t>(rng() % 120));
      const auto documents = random_documents(rng, lengths);
      const Batch packed = Batch::pack_bytes(documents);
      const auto scores = model->scores(packed.bytes, packed.targets, packed.documents);
      const double threshold = scores.entropy.median().item<double>();
      int64_t offset = 0;
      for (const PatchedSequence& document : documents) {
        const Batch single = Batch::pack_bytes({document});
        const auto alone = model->scores(single.bytes, single.targets, single.documents);
        const int64_t begin = offset;
        offset += single.documents.total;
        ASSERT_TRUE(same_bits(scores.entropy.slice(0, begin, offset), alone.entropy));
        ASSERT_TRUE(same_bits(scores.nll.slice(0, begin, offset), alone.nll));
        EXPECT_EQ(starts(document, scores.entropy.slice(0, begin, offset), threshold),
                  starts(document, alone.entropy, threshold));
      }
    }
  }
}

TEST(EntropyModel, EntropiesDoNotDependOnTheNumberOfThreadsBitForBit) {
  std::mt19937_64 rng(22);
  EntropyModel model = frozen_model(configs()[3], 23);
  const Batch batch = Batch::pack_bytes(random_documents(rng, {500, 3, 0, 700}));
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = model->scores(batch.bytes, batch.targets, batch.documents);
  at::set_num_threads(std::max(threads, 3));
  const auto many = model->scores(batch.bytes, batch.targets, batch.documents);
  at::set_num_threads(threads);
  EXPECT_TRUE(same_bits(one.entropy, many.entropy));
  EXPECT_TRUE(same_bits(one.nll, many.nll));
}

TEST(EntropyModel, ChangingAByteNeverChangesEarlierEntropies) {
  std::mt19937_64 rng(24);
  for (const EntropyModelConfig& config : configs()) {
    EntropyModel model = frozen_model(config, 25);
    PatchedSequence document = random_document(rng, 50);
    const auto entropies = [&](const PatchedSequence& sequence) {
      const Batch batch = Batch::pack_bytes({sequence});
      return model->scores(batch.bytes, batch.targets, batch.documents).entropy;
    };
    const at::Tensor before = entropies(document);
    for (const int64_t t : {1, 17, 50}) {
      PatchedSequence changed = document;
      changed.ids[t] = kByteOffset + 'Z';
      const at::Tensor after = entropies(changed);
      EXPECT_TRUE(same_bits(before.slice(0, 0, t), after.slice(0, 0, t))) << t;
      EXPECT_FALSE(same_bits(before.slice(0, t), after.slice(0, t))) << t;
    }
  }
}

TEST(EntropyModel, AFrozenModelComputesWhatItDidBefore) {
  std::mt19937_64 rng(26);
  for (const EntropyModelConfig& config : configs()) {
    torch::manual_seed(27);
    EntropyModel model(config);
    model->eval();
    const Batch batch = Batch::pack_bytes(random_documents(rng, {80, 5}));
    const at::Tensor logits = model->forward(batch).detach();
    const ops::CrossEntropy expected = ops::cross_entropy(logits, batch.targets);
    freeze(*model);
    const auto scores = model->scores(batch.bytes, batch.targets, batch.documents);
    EXPECT_TRUE(torch::allclose(scores.entropy, expected.entropy, 1e-5, 1e-5));
    EXPECT_TRUE(torch::allclose(scores.nll, expected.nll, 1e-5, 1e-5));
    const at::Tensor p = logits.softmax(-1);
    EXPECT_TRUE(torch::allclose(scores.entropy, -(p * p.log()).sum(-1), 1e-5, 1e-5));
    EXPECT_FALSE(scores.entropy.requires_grad());
  }
}

TEST(EntropyModel, ScoresWantAFrozenModel) {
  EntropyModel model(small_entropy_config());
  std::mt19937_64 rng(28);
  const Batch batch = Batch::pack_bytes(random_documents(rng, {5}));
  EXPECT_THROW(model->scores(batch.bytes, batch.targets, batch.documents), c10::Error);
  freeze(*model);
  EXPECT_NO_THROW(model->scores(batch.bytes, batch.targets, batch.documents));
  model->train();
  EXPECT_THROW(model->scores(batch.bytes, batch.targets, batch.documents), c10::Error);
}

// A frozen model runs off the CPU too: here on LibTorch's meta device, which has shapes and no numbers.
TEST(EntropyModel, ScoresOnAnotherDevice) {
  const MetaParameters shapes_only;
  std::mt19937_64 rng(22);
  const Batch packed = Batch::pack_bytes(random_documents(rng, {9, 30, 1})).to(at::kMeta);
  for (const EntropyModelConfig& config : configs())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      EntropyModel model(config);
      model->to(dtype);
      freeze(*model);
      const auto scores = model->scores(packed.bytes, packed.targets, packed.documents);
      EXPECT_TRUE(scores.entropy.is_meta());
      EXPECT_EQ(scores.entropy.scalar_type(), at::kFloat);
      EXPECT_EQ(scores.entropy.sizes(), packed.bytes.sizes());
      EXPECT_EQ(scores.nll.sizes(), packed.bytes.sizes());
    }
}

}  // namespace
}  // namespace blt
