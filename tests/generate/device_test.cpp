// Generation on a device: as on the CPU, and what it waits for.
#include "blt/model/device.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "blt/base/error.h"
#include "blt/generate/generator.h"
#include "cuda_emulation/kernels.h"
#include "host_reads.h"
#include "message.h"
#include "model/small_model.h"
#include "on_cuda.h"

namespace blt {
namespace {

constexpr double kThreshold = 5.1075;  // nats: above it is about every third entropy of these models
constexpr uint64_t kSeed = 5;

template <class Module, class Config>
Module on_device(const Config& config, at::Device device, at::ScalarType dtype) {
  torch::manual_seed(kSeed);
  Module model(config);
  model->to(device, dtype);
  freeze(*model);
  return model;
}

PatchingConfig with_entropies() {
  PatchingConfig config;
  std::get<EntropyPatching>(config.rule).threshold = kThreshold;
  return config;
}

Generator generator_on(at::Device device, const BltConfig& config,
                       const PatchingConfig& patching = with_entropies(), at::ScalarType dtype = at::kFloat) {
  EntropyModelConfig entropy_config = small_entropy_config();
  entropy_config.ngram = {.sizes = {2, 3}, .rows = 64, .functions = 1};
  return {on_device<Blt>(config, device, dtype), on_device<EntropyModel>(entropy_config, device, dtype),
          make_patcher(patching)};
}

BltConfig config_named(const std::string& name) {
  for (const auto& [option, config] : option_configs())
    if (option == name) return config;
  throw Error("no config " + name);
}

std::vector<std::vector<int32_t>> prompts() { return {{kBos}, ids_of("a prompt, and what follows")}; }

// What was said and chosen about several sequences that went on side by side.
struct Told {
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<int64_t>> starts;
  std::vector<std::vector<float>> entropies;
  std::vector<at::Tensor> logits;  // after each step, of all sequences
};

// Goes on by the likeliest bytes, or along `follow`.
Told go_on(const Generator& generator, int64_t bytes, const Told* follow = nullptr) {
  Sampler greedy([] {
    SamplerConfig config;
    config.greedy = true;
    return config;
  }());
  std::vector<GeneratedSequence> sequences = generator.prefill(prompts());
  Told told;
  for (int64_t n = 0;; ++n) {
    std::vector<at::Tensor> logits;
    std::vector<int32_t> next;
    std::vector<GeneratedSequence*> all;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const at::Tensor& own = sequences[i].logits();
      logits.push_back(own);
      next.push_back(follow != nullptr && n < bytes
                         ? follow->ids[i][sequences[i].ids().size()]
                         : greedy({own.const_data_ptr<float>(), static_cast<size_t>(own.numel())}));
      all.push_back(&sequences[i]);
    }
    told.logits.push_back(at::stack(logits));
    if (n == bytes) break;
    generator.step(all, next);
  }
  for (const GeneratedSequence& sequence : sequences) {
    told.ids.push_back(sequence.ids());
    told.starts.push_back(sequence.starts());
    told.entropies.push_back(sequence.entropies());
  }
  return told;
}

// Where rounding would change it, a choice is nobody's: the models and the threshold are chosen so that there is no such.
void expect_clear_choices(const Told& told) {
  for (const at::Tensor& logits : told.logits) {
    const at::Tensor best = std::get<0>(logits.topk(2, 1));
    EXPECT_GT((best.select(1, 0) - best.select(1, 1)).min().item<double>(), 1e-4);
  }
  for (const auto& entropies : told.entropies)
    for (const float entropy : entropies) EXPECT_GT(std::abs(entropy - kThreshold), 1e-4);
  for (const auto& starts : told.starts) {
    EXPECT_GT(starts.size(), 6u);
    EXPECT_LT(starts.size(), 36u);
  }
}

void expect_close(const Told& told, const Told& expected, double tolerance) {
  ASSERT_EQ(told.logits.size(), expected.logits.size());
  for (size_t i = 0; i < told.logits.size(); ++i) {
    EXPECT_TRUE(told.logits[i].is_cpu());
    const at::Tensor error = (told.logits[i] - expected.logits[i]).abs().max();
    ASSERT_LE(error.item<double>(), tolerance) << "after " << i << " steps";
  }
}

void expect_that_of_the_cpu(const Told& told, const Told& expected) {
  EXPECT_EQ(told.ids, expected.ids);
  EXPECT_EQ(told.starts, expected.starts);
  for (size_t i = 0; i < expected.entropies.size(); ++i) {
    ASSERT_EQ(told.entropies[i].size(), expected.entropies[i].size());
    for (size_t n = 0; n < expected.entropies[i].size(); ++n)
      ASSERT_NEAR(told.entropies[i][n], expected.entropies[i][n], 2e-5) << n;
  }
  expect_close(told, expected, 5e-5);
}

constexpr const char* kConfigs[] = {"default", "encoder_cross_attention_in_all",
                                    "decoder_without_cross_attention", "grouped_queries"};
constexpr int64_t kBytes = 40;

// Several times as long as the windows of the models.
TEST(Generation, OfTheEmulatedCudaCodeIsThatOfTheCpu) {
  for (const char* name : kConfigs) {
    SCOPED_TRACE(name);
    const Told expected = go_on(generator_on(at::kCPU, config_named(name)), kBytes);
    expect_clear_choices(expected);
    const emulation::EmulatedCuda cuda;
    expect_that_of_the_cpu(go_on(generator_on(at::kCPU, config_named(name)), kBytes), expected);
    EXPECT_GT(cuda.launches(), 0);
  }
}

std::vector<int32_t> sampled(const Generator& generator) {
  GenerateOptions options{.max_bytes = kBytes, .ignore_eos = true};
  options.sampler.temperature = 0.9;
  options.sampler.top_p = 0.9;
  options.sampler.seed = 3;
  return generate(generator, ids_of("some"), options, [](uint8_t) {});
}

TEST(Generation, OfTheEmulatedCudaCodeSamplesAsTheCpu) {
  const std::vector<int32_t> expected = sampled(generator_on(at::kCPU, small_config()));
  const emulation::EmulatedCuda cuda;
  EXPECT_EQ(sampled(generator_on(at::kCPU, small_config())), expected);
}

TEST(Generation, AStepReadsNothingButItsResults) {
  for (const char* name : kConfigs) {
    const Generator generator = generator_on(at::kCPU, config_named(name));
    std::vector<GeneratedSequence> sequences = generator.prefill(prompts());
    const HostReads reads;
    for (int i = 0; i < 20; ++i) generator.step({&sequences[0], &sequences[1]}, {'a' + i, 'b' + i});
    EXPECT_EQ(HostReads::count, 0) << name;
    EXPECT_GT(sequences[0].starts().size(), 3u);
  }
}

TEST(Generation, TakesModelsOfOneTypeOnOneDevice) {
  Blt model(small_config());
  model->local_encoder->to(at::kDouble);
  freeze(*model);
  const std::shared_ptr<const Patcher> patcher = rule_patcher([](int32_t) { return true; });
  EXPECT_MESSAGE(Generator(model, EntropyModel(nullptr), patcher),
                 "must be on one device in one type, is Double on cpu and Float on cpu");
  EXPECT_MESSAGE(Generator(on_device<EntropyModel>(small_entropy_config(), at::kCPU, at::kBFloat16)),
                 "on the CPU a model must be float32, is BFloat16");
}

// None of these has run yet.
class OnCuda : public testing::OnDevice {};

TEST_F(OnCuda, GreedyOutputIsThatOfTheCpu) {
  for (const char* name : kConfigs) {
    SCOPED_TRACE(name);
    expect_that_of_the_cpu(go_on(generator_on(device_, config_named(name)), kBytes),
                           go_on(generator_on(at::kCPU, config_named(name)), kBytes));
  }
}

TEST_F(OnCuda, ASeedChoosesAsOnTheCpu) {
  EXPECT_EQ(sampled(generator_on(device_, small_config())), sampled(generator_on(at::kCPU, small_config())));
}

TEST_F(OnCuda, LogitsInBfloat16FollowThoseOfTheCpu) {
  PatchingConfig patching;
  patching.rule = StaticPatching{.patch_bytes = 4};
  for (const char* name : kConfigs) {
    SCOPED_TRACE(name);
    const Told expected = go_on(generator_on(at::kCPU, config_named(name), patching), kBytes);
    const Generator generator = generator_on(device_, config_named(name), patching, at::kBFloat16);
    expect_close(go_on(generator, kBytes, &expected), expected,
                 0.1 * expected.logits[0].abs().max().item<double>());
  }
}

#ifdef BLT_HAS_CUDA
// It waits by events, for logits and entropies; whatever else waits throws here.
TEST_F(OnCuda, AStepWaitsForItsResultsAlone) {
  const Generator generator = generator_on(device_, small_config());
  std::vector<GeneratedSequence> sequences = generator.prefill(prompts());
  const auto step = [&] { generator.step({&sequences[0], &sequences[1]}, {'a', 'b'}); };
  step();
  const SynchronisationIsAnError no_waiting;
  EXPECT_NO_THROW(for (int i = 0; i < 30; ++i) step());
}
#endif

}  // namespace
}  // namespace blt
