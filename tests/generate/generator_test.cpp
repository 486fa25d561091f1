// What is generated with caches is what the whole model says without them.
#include "blt/generate/generator.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <string>
#include <vector>

#include "blt/data/entropy_model_source.h"
#include "message.h"
#include "model/compare.h"
#include "model/small_model.h"

namespace blt {
namespace {

template <class Module>
Module frozen(Module model) {
  model->eval();
  freeze(*model);
  return model;
}

Blt new_blt(const BltConfig& config, uint64_t seed) {
  torch::manual_seed(seed);
  return frozen(Blt(config));
}
EntropyModel new_entropy_model(const EntropyModelConfig& config, uint64_t seed) {
  torch::manual_seed(seed);
  return frozen(EntropyModel(config));
}

// What a test generates with.
struct Models {
  Blt blt{nullptr};
  EntropyModel entropy_model{nullptr};
  std::shared_ptr<const Patcher> patcher = nullptr;
  Generator::Options options = {};

  Generator generator() const { return {blt, entropy_model, patcher, options}; }
};

// Without caches: entropies, patches and logits of the whole sequence.
struct Whole {
  std::vector<float> entropies;
  std::vector<int64_t> starts;
  at::Tensor logits;  // [S, V]
};

Whole whole(const Models& models, const std::vector<int32_t>& ids) {
  const at::NoGradGuard no_grad;
  Whole result;
  if (models.patcher->needs_entropies()) {
    EntropyModelSource::Options how;
    how.reset_at_newline = models.options.reset_at_newline;
    EntropyModelSource source(models.entropy_model, how);
    result.entropies = source.scores(std::vector<std::vector<int32_t>>{ids})[0].entropies;
  }
  result.starts = models.patcher->starts(ids, result.entropies);
  Blt blt = models.blt;
  result.logits = blt->forward(Batch::pack({{ids, result.starts, {}}}));
  return result;
}

std::vector<int32_t> random_ids(std::mt19937_64& rng, int64_t num_bytes) {
  std::vector<int32_t> ids{kBos};
  for (int64_t i = 0; i < num_bytes; ++i)
    ids.push_back(rng() % 12 == 0 ? '\n' + kByteOffset : kByteOffset + static_cast<int32_t>(97 + rng() % 6));
  return ids;
}

// Goes along `ids` from a prompt of the first `prompt`, and compares everything with the whole at every place. The
// models are frozen, so nothing may differ at all.
void expect_the_whole(const Models& models, const std::vector<int32_t>& ids, int64_t prompt) {
  const Whole expected = whole(models, ids);
  const Generator generator = models.generator();
  auto sequences = generator.prefill({{ids.begin(), ids.begin() + prompt}});
  GeneratedSequence& sequence = sequences[0];
  for (auto size = prompt;; ++size) {
    ASSERT_TRUE(at::equal(sequence.logits(), expected.logits[size - 1]))
        << "after " << size << " ids the logits differ by "
        << (sequence.logits() - expected.logits[size - 1]).abs().max();
    if (size == static_cast<int64_t>(ids.size())) break;
    generator.step({&sequence}, {ids[size]});
  }
  EXPECT_EQ(sequence.ids(), ids);
  EXPECT_EQ(sequence.entropies(), expected.entropies);
  EXPECT_EQ(sequence.starts(), expected.starts);
}

// Of the entropies that random models have, about every third starts a patch.
double threshold_for(const EntropyModel& model, const std::vector<int32_t>& ids) {
  EntropyModelSource source(model, {});
  std::vector<float> entropies = source.scores(std::vector<std::vector<int32_t>>{ids})[0].entropies;
  std::sort(entropies.begin(), entropies.end());
  return entropies[entropies.size() * 2 / 3];
}

PatchingConfig entropy_patching(double threshold) {
  PatchingConfig config;
  std::get<EntropyPatching>(config.rule).threshold = threshold;
  return config;
}

class EveryOption : public testing::TestWithParam<size_t> {};

TEST_P(EveryOption, GivesTheLogitsOfTheWholeSequenceBitForBit) {
  const auto [name, config] = option_configs()[GetParam()];
  std::mt19937_64 rng(GetParam());
  const std::vector<int32_t> ids = random_ids(rng, 80);
  Models models{.blt = new_blt(config, 1), .entropy_model = new_entropy_model(small_entropy_config(), 2)};
  models.patcher = make_patcher(entropy_patching(threshold_for(models.entropy_model, ids)));
  for (const int64_t prompt : {1, 2, 40}) {
    SCOPED_TRACE(name + ", prompt of " + std::to_string(prompt) + " ids");
    expect_the_whole(models, ids, prompt);
  }
}

INSTANTIATE_TEST_SUITE_P(Generator, EveryOption, testing::Range<size_t>(0, option_configs().size()),
                         [](const auto& test) { return option_configs()[test.param].first; });

TEST(Generator, PatchesAsEveryPatcherDoes) {
  std::mt19937_64 rng(3);
  const std::vector<int32_t> ids = random_ids(rng, 90);
  Models models{.blt = new_blt(small_config(), 4),
                .entropy_model = new_entropy_model(small_entropy_config(), 5)};
  const double threshold = threshold_for(models.entropy_model, ids);
  std::vector<PatchingConfig> configs(6, entropy_patching(threshold));
  configs[0].rule = StaticPatching{.patch_bytes = 5};
  configs[1].rule = BytePatching{};
  configs[2].rule = SpacePatching{};
  std::get<EntropyPatching>(configs[3].rule).threshold_add = 0.0;
  std::get<EntropyPatching>(configs[4].rule).threshold = 0.001;
  std::get<EntropyPatching>(configs[4].rule).monotonic = true;
  std::get<EntropyPatching>(configs[5].rule).threshold = 100;  // one long patch
  for (size_t i = 0; i < configs.size(); ++i)
    for (const bool full_patches : {false, true})
      for (const bool reset : {false, true}) {
        if (full_patches) configs[i].max_patch_length = 3;
        models.options.reset_at_newline = reset;
        models.patcher = make_patcher(configs[i]);
        SCOPED_TRACE("patcher " + std::to_string(i));
        for (const int64_t prompt : {1, 17}) expect_the_whole(models, ids, prompt);
      }
}

// Windows of the size that is used, prompts of 0, 1 and 1,000 bytes, and past the window; n-grams in the entropy model.
TEST(Generator, GivesTheLogitsOfTheWholeSequencePastTheWindow) {
  std::mt19937_64 rng(6);
  BltConfig config = small_config();
  config.window = 150;
  EntropyModelConfig entropy_config = small_entropy_config();
  entropy_config.window = 200;
  entropy_config.ngram = {.sizes = {2, 4}, .rows = 64, .functions = 1};
  entropy_config.kv_heads = 1;
  const std::vector<int32_t> ids = random_ids(rng, 1050);
  Models models{.blt = new_blt(config, 7), .entropy_model = new_entropy_model(entropy_config, 8)};
  models.patcher = make_patcher(entropy_patching(threshold_for(models.entropy_model, ids)));
  for (const int64_t prompt : {1, 2, 1001}) {
    SCOPED_TRACE(prompt);
    expect_the_whole(models, ids, prompt);
  }
}

// A model that is not frozen multiplies with a library whose rounding depends on the number of rows: 1e-5 of the
// largest logit.
TEST(Generator, GivesTheLogitsOfTheModelThatIsNotFrozen) {
  for (const auto& [name, config] : option_configs()) {
    std::mt19937_64 rng(9);
    const std::vector<int32_t> ids = random_ids(rng, 60);
    torch::manual_seed(10);
    Blt plain(config);
    plain->eval();
    Models models{.blt = new_blt(config, 10)};
    PatchingConfig patching;
    patching.rule = SpacePatching{};
    models.patcher = make_patcher(patching);
    const at::NoGradGuard no_grad;
    const at::Tensor expected = plain->forward(Batch::pack({{ids, models.patcher->starts(ids), {}}}));
    const Generator generator = models.generator();
    auto sequences = generator.prefill({{kBos}});
    for (size_t size = 1; size < ids.size(); ++size) {
      ASSERT_TRUE(within(name, sequences[0].logits(), expected[static_cast<int64_t>(size) - 1],
                         1e-5 * largest(expected)));
      generator.step({&sequences[0]}, {ids[size]});
    }
  }
}

// Sequences at different places, now these and now those, as each alone.
TEST(Generator, SeveralSequencesAreAsEachAlone) {
  std::mt19937_64 rng(11);
  for (const char* name : {"default", "encoder_cross_attention_in_all", "decoder_without_cross_attention"}) {
    const auto options = option_configs();
    const auto config =
        std::find_if(options.begin(), options.end(), [&](const auto& o) { return o.first == name; });
    std::vector<std::vector<int32_t>> ids;
    for (const int64_t bytes : {90, 70, 100, 61}) ids.push_back(random_ids(rng, bytes));
    Models models{.blt = new_blt(config->second, 12),
                  .entropy_model = new_entropy_model(small_entropy_config(), 13)};
    models.options.reset_at_newline = true;
    models.patcher = make_patcher(entropy_patching(threshold_for(models.entropy_model, ids[0])));
    const Generator generator = models.generator();
    std::vector<size_t> sizes = {1, 40, 13, 60};
    std::vector<std::vector<int32_t>> prompts;
    for (size_t i = 0; i < ids.size(); ++i) prompts.emplace_back(ids[i].begin(), ids[i].begin() + sizes[i]);
    auto sequences = generator.prefill(prompts);
    std::vector<Whole> expected;
    for (const auto& sequence : ids) expected.push_back(whole(models, sequence));
    while (true) {
      for (size_t i = 0; i < ids.size(); ++i)
        ASSERT_TRUE(at::equal(sequences[i].logits(), expected[i].logits[static_cast<int64_t>(sizes[i]) - 1]))
            << name << ": sequence " << i << " after " << sizes[i] << " ids";
      std::vector<GeneratedSequence*> some;
      std::vector<int32_t> next;
      for (size_t i = 0; i < ids.size(); ++i)
        if (sizes[i] < ids[i].size() && rng() % 3 != 0) {
          some.push_back(&sequences[i]);
          next.push_back(ids[i][sizes[i]++]);
        }
      generator.step(some, next);
      bool done = true;
      for (size_t i = 0; i < ids.size(); ++i) done = done && sizes[i] == ids[i].size();
      if (done) break;
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      EXPECT_EQ(sequences[i].starts(), expected[i].starts);
      EXPECT_EQ(sequences[i].entropies(), expected[i].entropies);
    }
  }
}

TEST(Generator, AnEntropyModelAloneIsALanguageModel) {
  std::mt19937_64 rng(14);
  const std::vector<int32_t> ids = random_ids(rng, 70);
  EntropyModelConfig config = small_entropy_config();
  config.ngram = {.sizes = {3}, .rows = 64, .functions = 1};
  EntropyModel model = new_entropy_model(config, 15);
  const at::NoGradGuard no_grad;
  const at::Tensor expected = model->forward(Batch::pack_bytes({{ids, {}, {}}}));
  for (const size_t prompt : {1u, 30u}) {
    const Generator generator(model);
    auto sequences = generator.prefill({{ids.begin(), ids.begin() + prompt}});
    for (size_t size = prompt;; ++size) {
      ASSERT_TRUE(at::equal(sequences[0].logits(), expected[static_cast<int64_t>(size) - 1])) << size;
      if (size == ids.size()) break;
      generator.step({&sequences[0]}, {ids[size]});
    }
    EXPECT_TRUE(sequences[0].starts().empty());
  }
}

TEST(Generator, DoesNotDependOnTheNumberOfThreads) {
  std::mt19937_64 rng(16);
  const std::vector<int32_t> ids = random_ids(rng, 300);
  BltConfig config = small_config();
  config.window = 0;
  Models models{.blt = new_blt(config, 17)};
  PatchingConfig patching;
  patching.rule = SpacePatching{};
  models.patcher = make_patcher(patching);
  const Generator generator = models.generator();
  const auto run = [&](int threads) {
    const int before = at::get_num_threads();
    at::set_num_threads(threads);
    const auto sequences = generator.prefill({ids});
    at::set_num_threads(before);
    return sequences[0].logits();
  };
  EXPECT_TRUE(at::equal(run(1), run(2)));
}

// Greedy, byte for byte what running the whole model for every byte gives; special ids are fed back, not emitted.
TEST(Generate, IsGreedyAsTheModelWithoutCaches) {
  for (const uint64_t seed : {20, 21, 22}) {
    std::mt19937_64 rng(seed);
    Models models{.blt = new_blt(small_config(), seed),
                  .entropy_model = new_entropy_model(small_entropy_config(), 5)};
    std::vector<int32_t> ids = random_ids(rng, 30);
    models.patcher = make_patcher(entropy_patching(threshold_for(models.entropy_model, ids)));
    GenerateOptions options{.max_bytes = 40, .ignore_eos = true};
    options.sampler.greedy = true;
    std::string bytes;
    const std::vector<int32_t> chosen =
        generate(models.generator(), ids, options, [&](uint8_t byte) { bytes += static_cast<char>(byte); });
    std::string expected;
    std::vector<int32_t> expected_ids;
    for (int i = 0; i < 40; ++i) {
      const auto id = static_cast<int32_t>(whole(models, ids).logits[-1].argmax().item<int64_t>());
      ids.push_back(id);
      expected_ids.push_back(id);
      if (id >= kByteOffset) expected += static_cast<char>(id - kByteOffset);
    }
    EXPECT_EQ(chosen, expected_ids);
    EXPECT_EQ(bytes, expected);
  }
}

// A model that always says the same id: its output matrix asks for one channel, which the embedding of every id has.
EntropyModel model_that_says(int32_t id) {
  EntropyModelConfig config = small_entropy_config();
  torch::manual_seed(1);
  EntropyModel model(config);
  const at::NoGradGuard no_grad;
  for (at::Tensor& parameter : model->parameters())
    if (parameter.dim() == 2) parameter.zero_();
  model->embedding->byte_table.select(1, 0).fill_(1);
  model->lm_head->weight[id][0] = 5;
  return frozen(model);
}

TEST(Generate, StopsAtEosUnlessItIsIgnored) {
  const auto run = [](int32_t id, bool ignore_eos) {
    GenerateOptions options{.max_bytes = 6, .ignore_eos = ignore_eos};
    options.sampler.greedy = true;
    std::string bytes;
    const auto ids = generate(Generator(model_that_says(id)), {kBos}, options,
                              [&](uint8_t byte) { bytes += static_cast<char>(byte); });
    return std::pair{bytes, ids.size()};
  };
  EXPECT_EQ(run('x' + kByteOffset, false), std::pair(std::string("xxxxxx"), size_t{6}));
  EXPECT_EQ(run(0xff + kByteOffset, false), std::pair(std::string("\xff\xff\xff\xff\xff\xff"), size_t{6}));
  EXPECT_EQ(run(kEos, false), std::pair(std::string(), size_t{1}));
  EXPECT_EQ(run(kEos, true), std::pair(std::string(), size_t{6}));
  EXPECT_EQ(run(kBoe, false), std::pair(std::string(), size_t{6}));
}

TEST(Generator, RefusesWhatItCannotRun) {
  const EntropyModel entropy_model = new_entropy_model(small_entropy_config(), 1);
  const Blt blt = new_blt(small_config(), 1);
  PatchingConfig config;
  config.rule = TopKPatching{};
  EXPECT_MESSAGE(Generator(blt, entropy_model, make_patcher(config)), "top_k patching looks ahead");
  const std::shared_ptr<const Patcher> patcher = make_patcher(entropy_patching(1.0));
  EXPECT_MESSAGE(Generator(blt, EntropyModel(nullptr), patcher), "has no entropy model");
  Blt taking_gradients(small_config());
  taking_gradients->eval();
  EXPECT_MESSAGE(Generator(taking_gradients, entropy_model, patcher), "a model is not frozen");
  EntropyModel training = new_entropy_model(small_entropy_config(), 1);
  training->train();
  EXPECT_MESSAGE(Generator{training}, "in training mode");

  const Generator generator(blt, entropy_model, patcher);
  EXPECT_TRUE(generator.prefill({}).empty());
  EXPECT_MESSAGE(generator.prefill({{}}), "a prompt starts with the BOS");
  EXPECT_MESSAGE(generator.prefill({{kBos, 260}}), "id 260 is not in the vocabulary");
  auto sequences = generator.prefill({{kBos}});
  EXPECT_MESSAGE(generator.step({&sequences[0]}, {-1}), "id -1 is not in the vocabulary");
  EXPECT_MESSAGE(generator.step({&sequences[0]}, {5, 6}), "1 sequences but 2 ids");
  EXPECT_MESSAGE(generator.step({&sequences[0], &sequences[0]}, {5, 6}), "given twice");
  EXPECT_EQ(sequences[0].ids(), std::vector<int32_t>{kBos});
  EXPECT_MESSAGE(generate(generator, {kBos}, {}, [](uint8_t) {}), "max_bytes must be positive, got 0");
}

}  // namespace
}  // namespace blt
