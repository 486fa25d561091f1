// Times generation: how long bytes after a prompt take, the prompt's reading included, and what one byte costs at a place.
//
//   build/release/bench/generate --shape small
//   build/cuda/bench/generate --shape 1b --device cuda --dtype bfloat16        not yet run
#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/shapes.h"
#include "blt/base/files.h"
#include "blt/base/tool.h"
#include "blt/generate/generator.h"
#include "blt/io/model_dir.h"
#include "blt/model/compute.h"
#include "blt/model/device.h"

namespace blt {
namespace {

struct Options {
  std::optional<std::filesystem::path> model;
  std::optional<std::string> shape;
  std::optional<std::filesystem::path> text;
  std::optional<int64_t> patch_bytes;
  std::string device = "cpu";
  Compute dtype = Compute::kFloat32;
  int64_t prompt_ids = 128;
  int64_t max_bytes = 128;
  int64_t repeats = 5;
  bool follow_text = false;

  static void fields(auto& self, auto&& field) {
    field("model", self.model, "The directory of a Byte Latent Transformer.");
    field("shape", self.shape,
          "Instead: a random model of this shape, 1b, 400m, small or tiny, in patches of 4 bytes.");
    field("device", self.device, "Where to compute: cpu, cuda, or one of several such as cuda:1.");
    field("dtype", self.dtype, "What to compute in; on the CPU float32.");
    field("patch_bytes", self.patch_bytes,
          "Patches of this many bytes, whatever the entropies say (they are computed all the same).",
          at_least(1));
    field("text", self.text,
          "A file that prompts are cut from, repeated where it is too short. Default: some English.");
    field("prompt_ids", self.prompt_ids, "Ids of the prompt, the BOS included.", at_least(1));
    field("max_bytes", self.max_bytes, "Ids to generate.", at_least(1));
    field("follow_text", self.follow_text,
          "Feed the bytes of the text, not those that the model chooses: patches as long as the text's, "
          "anywhere in it.");
    field("repeats", self.repeats, "How often, after one run that is not counted.", at_least(1));
  }
  static constexpr Positional kPositional[] = {{"model", "MODEL_DIR"}};
  void validate(Errors& errors) const {
    if (model.has_value() == shape.has_value()) errors.add("model", "give MODEL_DIR or --shape");
    if (shape && *shape != "1b" && *shape != "400m" && *shape != "small" && *shape != "tiny")
      errors.add("shape", "is 1b, 400m, small or tiny");
    if (!is_device_name(device)) errors.add("device", kDeviceNames);
    if (device == "cpu" && dtype != Compute::kFloat32)
      errors.add("dtype", "is float32 on the cpu; bfloat16 goes with --device cuda");
  }
};

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Reads entropies as a model's rule does, and then ends patches by their length alone.
std::shared_ptr<const Patcher> patches_of(int64_t bytes) {
  return rule_patcher([bytes, count = int64_t{0}](int32_t, float) mutable { return ++count % bytes == 0; });
}

template <class Module>
void prepare(Module& model, at::Device device, Compute dtype) {
  model->to(device, dtype == Compute::kBfloat16 ? at::kBFloat16 : at::kFloat);
  freeze(*model);
}

Generator make_generator(const Options& options, at::Device device) {
  Blt blt{nullptr};
  EntropyModel entropy_model{nullptr};
  std::shared_ptr<const Patcher> patcher;
  if (options.shape) {
    blt = bench::make_model(bench::shape(*options.shape), device);
    entropy_model = EntropyModel(bench::entropy_shape(*options.shape));
    patcher = patches_of(4);
  } else {
    const LoadedModel loaded = load_model(*options.model);
    blt = loaded.blt;
    entropy_model = loaded.entropy_model;
    patcher = make_patcher(loaded.config.patching);
  }
  if (options.patch_bytes) patcher = patches_of(*options.patch_bytes);
  prepare(blt, device, options.dtype);
  if (!entropy_model.is_empty()) prepare(entropy_model, device, options.dtype);
  return Generator(blt, entropy_model, patcher);
}

void run(const Options& options) {
  const at::Device device = find_device(options.device, "--device " + options.device);
  const Generator generator = make_generator(options, device);
  const std::string text = options.text ? read_file(*options.text) : bench::kText;
  std::string prompt;
  while (static_cast<int64_t>(prompt.size()) + 1 < options.prompt_ids + options.max_bytes) prompt += text;
  const std::vector<int32_t> follow = ids_of(prompt.substr(options.prompt_ids - 1));
  prompt.resize(options.prompt_ids - 1);

  Sampler greedy([] {
    SamplerConfig config;
    config.greedy = true;
    return config;
  }());
  std::vector<double> total, prefill, step;
  double patch_bytes = 0;
  for (int64_t i = 0; i <= options.repeats; ++i) {
    const double start = now_s();
    auto sequences = generator.prefill({ids_of(prompt)});
    const double filled = now_s();
    const auto patches = static_cast<double>(sequences[0].starts().size());
    for (int64_t n = 0; n < options.max_bytes; ++n) {
      const at::Tensor& logits = sequences[0].logits();
      const int32_t best = greedy({logits.const_data_ptr<float>(), static_cast<size_t>(logits.numel())});
      const int32_t id = options.follow_text ? follow[n + 1] : best;
      if (n + 1 < options.max_bytes) generator.step({&sequences[0]}, {id});
    }
    const double end = now_s();
    if (i == 0) continue;
    total.push_back(end - start);
    prefill.push_back(filled - start);
    step.push_back((end - filled) / static_cast<double>(std::max<int64_t>(1, options.max_bytes - 1)));
    patch_bytes = static_cast<double>(options.max_bytes) /
                  std::max(1.0, static_cast<double>(sequences[0].starts().size()) - patches);
  }
  const auto median = [](std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  };
  std::cout << nlohmann::ordered_json{{"device", device.str()},
                                      {"dtype", std::string(name(options.dtype))},
                                      {"prompt_ids", options.prompt_ids},
                                      {"max_bytes", options.max_bytes},
                                      {"seconds", median(total)},
                                      {"seconds_all", total},
                                      {"prefill_s", median(prefill)},
                                      {"step_ms", 1e3 * median(step)},
                                      {"step_ms_min", 1e3 * *std::min_element(step.begin(), step.end())},
                                      {"mean_patch_bytes", patch_bytes}}
                   .dump()
            << "\n";
}

}  // namespace
}  // namespace blt

int main(int argc, char** argv) {
  return blt::tool<blt::Options>("generate", "Times greedy generation.", argc, argv, blt::run);
}
