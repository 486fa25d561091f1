// The packed model against its dense re-statement, for every option; and the laws that it must keep.
#include "blt/model/blt.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "blt/model/parameters.h"
#include "blt/ops/cross_entropy.h"
#include "model/dense_reference.h"
#include "model/small_model.h"

namespace blt {
namespace {

double max_abs(const at::Tensor& x) { return x.numel() == 0 ? 0.0 : x.abs().max().item<double>(); }

// The gradient of the n-gram table as a dense tensor.
at::Tensor dense_rows(const NgramEmbeddingImpl& embedding) {
  at::Tensor gradient = torch::zeros_like(embedding.ngram_table);
  for (const RowGradient& rows : embedding.row_gradients) {
    const auto count = rows.count.item<int64_t>();
    gradient.index_add_(0, rows.ids.slice(0, 0, count).to(torch::kLong), rows.values.slice(0, 0, count));
  }
  return gradient;
}

at::Tensor loss_of(const at::Tensor& logits, const Batch& batch) {
  return ops::cross_entropy(logits, batch.targets).nll.sum();
}

class Options : public testing::TestWithParam<std::pair<std::string, BltConfig>> {
 protected:
  Options() {
    torch::manual_seed(1);
    model_ = Blt(GetParam().second);
    model_->to(torch::kDouble);
  }
  Blt model_{nullptr};
};

TEST_P(Options, PackedLogitsAreThoseOfTheDenseReference) {
  std::mt19937_64 rng(2);
  const auto documents = random_documents(rng, {40, 1, 0, 25, 7});
  const torch::NoGradGuard no_grad;
  const at::Tensor logits = model_->forward(Batch::pack(documents));
  std::vector<at::Tensor> expected;
  for (const PatchedSequence& document : documents)
    expected.push_back(DenseReference(*model_).forward(document));
  const at::Tensor reference = torch::cat(expected);
  ASSERT_EQ(logits.sizes(), reference.sizes());
  EXPECT_LT(max_abs(logits - reference), 1e-11 * std::max(1.0, max_abs(reference)));
}

TEST_P(Options, GradientsAreThoseOfTheDenseReference) {
  std::mt19937_64 rng(3);
  const auto documents = random_documents(rng, {30, 0, 12});
  const Batch batch = Batch::pack(documents);
  loss_of(model_->forward(batch), batch).backward();
  std::vector<std::pair<std::string, at::Tensor>> packed;
  for (const auto& parameter : model_->named_parameters())
    packed.emplace_back(parameter.key(),
                        parameter.value().grad().defined() ? parameter.value().grad().clone() : at::Tensor());
  NgramEmbeddingImpl& embedding = *model_->local_encoder->embedding;
  for (auto& [name, gradient] : packed)
    if (name == "local_encoder.embedding.ngram_table") {
      EXPECT_FALSE(gradient.defined()) << "the n-gram table has no dense gradient";
      gradient = dense_rows(embedding);
    }
  model_->zero_grad();
  std::vector<at::Tensor> expected;
  for (const PatchedSequence& document : documents)
    expected.push_back(DenseReference(*model_).forward(document));
  loss_of(torch::cat(expected), batch).backward();
  for (const auto& [name, gradient] : packed) {
    const at::Tensor& parameter = model_->named_parameters()[name];
    const auto or_zero = [&](const at::Tensor& x) { return x.defined() ? x : torch::zeros_like(parameter); };
    const at::Tensor reference = or_zero(parameter.grad());
    EXPECT_LT(max_abs(or_zero(gradient) - reference), 1e-11 * std::max(1.0, max_abs(reference))) << name;
    // Some options leave parameters idle: of one key only, the softmax has no gradient; pooling anew drops what was.
    EXPECT_TRUE(GetParam().first != "default" || max_abs(reference) > 0) << name << " takes no part";
  }
}

INSTANTIATE_TEST_SUITE_P(Blt, Options, testing::ValuesIn(option_configs()),
                         [](const auto& options) { return options.param.first; });

TEST(Blt, GradientsOfATinyWholeModelAreCentralDifferences) {
  torch::manual_seed(4);
  BltConfig config = small_config();
  config.local_dim = 8;
  config.latent_transformer.dim = 12;
  config.latent_transformer.heads = 2;
  Blt model(config);
  model->to(torch::kDouble);
  std::mt19937_64 rng(5);
  const Batch batch = Batch::pack(random_documents(rng, {20, 9}));
  loss_of(model->forward(batch), batch).backward();
  const torch::NoGradGuard no_grad;
  const auto loss = [&] { return loss_of(model->forward(batch), batch).item<double>(); };
  for (auto& parameter : model->named_parameters()) {
    const at::Tensor gradient = parameter.value().grad().defined()
                                    ? parameter.value().grad()
                                    : dense_rows(*model->local_encoder->embedding);
    for (int direction = 0; direction < 2; ++direction) {
      at::Tensor step = torch::randn_like(parameter.value());
      step *= 1e-5 / step.norm();
      parameter.value().add_(step);
      const double above = loss();
      parameter.value().sub_(step, 2);
      const double below = loss();
      parameter.value().add_(step);
      const double expected = (gradient * step).sum().item<double>() * 2;
      EXPECT_NEAR(above - below, expected, 1e-6 * (gradient.norm() * step.norm()).item<double>() + 1e-12)
          << parameter.key();
    }
  }
}

TEST(Blt, ADocumentsLogitsDoNotDependOnWhatItIsPackedWith) {
  torch::manual_seed(6);
  Blt model(small_config());
  const torch::NoGradGuard no_grad;
  std::mt19937_64 rng(7);
  for (int round = 0; round < 5; ++round) {
    std::vector<int64_t> lengths;
    for (int i = 0; i < 12; ++i) lengths.push_back(static_cast<int64_t>(rng() % 90));
    const auto documents = random_documents(rng, lengths);
    const at::Tensor packed = model->forward(Batch::pack(documents));
    int64_t offset = 0;
    for (const PatchedSequence& document : documents) {
      const at::Tensor alone = model->forward(Batch::pack({document}));
      const at::Tensor part = packed.slice(0, offset, offset + alone.size(0));
      offset += alone.size(0);
      EXPECT_LE(max_abs(part - alone), 1e-5 * std::max(1.0, max_abs(alone)));
    }
  }
}

TEST(Blt, ADocumentsGradientsAreTheSumOverDocuments) {
  torch::manual_seed(8);
  Blt model(small_config());
  std::mt19937_64 rng(9);
  const auto documents = random_documents(rng, {50, 3, 31});
  const Batch packed = Batch::pack(documents);
  loss_of(model->forward(packed), packed).backward();
  std::vector<at::Tensor> together;
  for (const at::Tensor& parameter : model->parameters())
    together.push_back(parameter.grad().defined() ? parameter.grad().clone() : at::Tensor());
  const at::Tensor rows_together = dense_rows(*model->local_encoder->embedding);
  model->zero_grad();
  model->local_encoder->embedding->row_gradients.clear();
  for (const PatchedSequence& document : documents) {
    const Batch alone = Batch::pack({document});
    loss_of(model->forward(alone), alone).backward();
  }
  const auto parameters = model->named_parameters();
  for (size_t i = 0; i < together.size(); ++i) {
    if (!together[i].defined()) continue;
    const at::Tensor sum = parameters[i].value().grad();
    EXPECT_LE(max_abs(together[i] - sum), 1e-4 * max_abs(sum)) << parameters[i].key();
  }
  const at::Tensor rows = dense_rows(*model->local_encoder->embedding);
  EXPECT_LE(max_abs(rows_together - rows), 1e-4 * max_abs(rows));
}

TEST(Blt, ChangingAByteNeverChangesEarlierLogits) {
  torch::manual_seed(10);
  Blt model(small_config());
  const torch::NoGradGuard no_grad;
  std::mt19937_64 rng(11);
  PatchedSequence document = random_document(rng, 60);
  const at::Tensor before = model->forward(Batch::pack({document}));
  for (const int64_t t : {1, 2, 13, 30, 59, 60}) {
    PatchedSequence changed = document;
    changed.ids[t] = kByteOffset + 'Z';
    // Everything after it may be cut differently too: patches start anew after every id from t on.
    std::erase_if(changed.starts, [&](int64_t start) { return start > t; });
    for (int64_t i = t + 1; i <= 61; i += 2) changed.starts.push_back(i);
    const at::Tensor after = model->forward(Batch::pack({changed}));
    const at::Tensor kept = before.slice(0, 0, t);
    EXPECT_LE(max_abs(after.slice(0, 0, t) - kept), 1e-5 * std::max(1.0, max_abs(kept))) << t;
    EXPECT_GT(max_abs(after[t] - before[t]), 1e-3) << t;  // and it does change its own
  }
}

TEST(Blt, DropoutActsInTrainingOnly) {
  BltConfig config = small_config();
  torch::manual_seed(12);
  Blt plain(config);
  config.local_encoder.dropout = config.latent_transformer.dropout = config.local_decoder.dropout = 0.3;
  torch::manual_seed(12);
  Blt dropping(config);
  std::mt19937_64 rng(13);
  const Batch batch = Batch::pack(random_documents(rng, {50}));
  const torch::NoGradGuard no_grad;
  dropping->eval();
  EXPECT_TRUE(torch::equal(dropping->forward(batch), plain->forward(batch)));
  dropping->train();
  const at::Tensor first = dropping->forward(batch);
  EXPECT_FALSE(torch::equal(first, dropping->forward(batch)));
  EXPECT_FALSE(torch::equal(first, plain->forward(batch)));
}

TEST(Blt, DropoutOfNgramsActsInTrainingOnlyAndFollowsTheRandomNumbers) {
  BltConfig config = small_config();
  torch::manual_seed(12);
  Blt plain(config);
  config.ngram.dropout = 0.4;
  torch::manual_seed(12);
  Blt dropping(config);
  std::mt19937_64 rng(13);
  const Batch batch = Batch::pack(random_documents(rng, {50}));
  dropping->eval();
  EXPECT_TRUE(torch::equal(dropping->forward(batch), plain->forward(batch)));
  dropping->train();
  const auto seeded = [&](uint64_t seed) {
    torch::manual_seed(seed);
    return dropping->forward(batch);
  };
  const at::Tensor first = seeded(1);
  EXPECT_TRUE(torch::equal(first, seeded(1)));
  EXPECT_FALSE(torch::equal(first, seeded(2)));
  EXPECT_FALSE(torch::equal(first, dropping->forward(batch)));
  EXPECT_FALSE(torch::equal(first, plain->forward(batch)));
  first.sum().backward();
  plain->forward(batch).sum().backward();
  EXPECT_LT(dropping->local_encoder->embedding->row_gradients[0].count.item<int>(),
            plain->local_encoder->embedding->row_gradients[0].count.item<int>());
}

TEST(Blt, TiedEmbeddingsShareOneMatrix) {
  BltConfig config = small_config();
  config.tie_embeddings = true;
  Blt model(config);
  EXPECT_TRUE(model->lm_head.is_empty());
  EXPECT_FALSE(model->named_parameters().contains("lm_head.weight"));
}

TEST(Blt, FreezesWhereThereAreNoPackedProducts) {
  const MetaParameters shapes_only;
  std::mt19937_64 rng(17);
  const Batch batch = Batch::pack(random_documents(rng, {20, 7})).to(at::kMeta);
  for (const bool tied : {false, true}) {
    BltConfig config = small_config();
    config.tie_embeddings = tied;
    Blt model(config);
    freeze(*model);
    EXPECT_EQ(model->forward(batch).sizes(), (std::vector<int64_t>{batch.bytes.size(0), kVocabulary}));
  }
}

// Standard deviations as configured (REFERENCE section 10).
class Initialisation : public testing::Test {
 protected:
  static BltConfig config() {
    BltConfig config = small_config();
    config.local_dim = 128;
    config.latent_transformer.dim = 192;
    config.latent_transformer.layers = 3;
    config.local_encoder.ffn_dim = config.local_decoder.ffn_dim = 320;
    config.ngram.rows = 500;
    return config;
  }
  // Normal, cut at three standard deviations: that leaves 0.98658 of it.
  static void expect_std(const at::Tensor& x, double std) {
    EXPECT_NEAR(x.std().item<double>(), 0.98658 * std, 0.02 * std);
    EXPECT_NEAR(x.mean().item<double>(), 0, 0.03 * std);
    EXPECT_LE(max_abs(x), 3.0001 * std);
    EXPECT_GT(max_abs(x), 2.7 * std);
  }
  static const TransformerLayerImpl& layer(const Layers& layers, size_t i) {
    return layers->at<TransformerLayerImpl>(i);
  }
};

TEST_F(Initialisation, IsTheInverseRootOfTheInputWidthByDefault) {
  torch::manual_seed(14);
  Blt model(config());
  const double local = 1 / std::sqrt(128.0), latent = 1 / std::sqrt(192.0);
  expect_std(model->local_encoder->embedding->byte_table, local);
  expect_std(model->local_encoder->embedding->ngram_table, local);
  expect_std(model->lm_head->weight, local);
  expect_std(model->local_encoder->patch_embedding_projection->weight, local);
  expect_std(model->latent_transformer->token_embedding_projection->weight, 1 / std::sqrt(256.0));
  expect_std(model->local_decoder->patch_embedding_projection->weight, latent);
  for (size_t i = 0; i < 3; ++i) {
    const auto& block = layer(model->latent_transformer->layers, i);
    expect_std(block.self_attn->o_proj->weight, latent);
    expect_std(block.mlp->up_proj->weight, latent);
    expect_std(block.mlp->down_proj->weight, 1 / std::sqrt(48.0));
  }
  expect_std(layer(model->local_decoder->layers, 1).mlp->down_proj->weight, 1 / std::sqrt(320.0));
  expect_std(model->local_decoder->cross_attn_layers->at<CrossAttentionImpl>(1).q_proj->weight, local);
  for (const auto& parameter : model->named_parameters()) {
    if (parameter.value().dim() != 1) continue;
    EXPECT_TRUE(parameter.value().eq(1).all().item<bool>()) << parameter.key();
  }
}

TEST_F(Initialisation, IsDividedByTheChosenFactor) {
  BltConfig scaled = config();
  scaled.latent_transformer.init_std_factor = InitStdFactor::kCurrentDepth;
  scaled.local_decoder.init_std_factor = InitStdFactor::kGlobalDepth;
  scaled.local_encoder.init_std_factor = InitStdFactor::kDimRatio;
  torch::manual_seed(15);
  Blt model(scaled);
  for (size_t i = 0; i < 3; ++i)
    expect_std(layer(model->latent_transformer->layers, i).self_attn->q_proj->weight,
               1 / std::sqrt(192.0) / std::sqrt(2.0 * static_cast<double>(i + 1)));
  for (size_t i = 0; i < 2; ++i)
    expect_std(layer(model->local_decoder->layers, i).mlp->gate_proj->weight,
               1 / std::sqrt(128.0) / std::sqrt(2.0 * (2 + 1)));
  expect_std(layer(model->local_encoder->layers, 0).self_attn->v_proj->weight,
             1 / std::sqrt(128.0) / (128.0 / 4096.0));
  expect_std(model->lm_head->weight, 1 / std::sqrt(128.0));  // embeddings, projections and output: never
}

TEST_F(Initialisation, StartsFromABaseThatCanBeSet) {
  BltConfig set = config();
  set.latent_transformer.init_base_std = 0.02;
  torch::manual_seed(16);
  Blt model(set);
  expect_std(layer(model->latent_transformer->layers, 0).self_attn->q_proj->weight, 0.02);
  expect_std(layer(model->latent_transformer->layers, 0).mlp->down_proj->weight, 0.02);
  expect_std(layer(model->local_encoder->layers, 0).self_attn->q_proj->weight, 1 / std::sqrt(128.0));
}

}  // namespace
}  // namespace blt
