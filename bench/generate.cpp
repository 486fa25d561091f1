// Times generation: how long bytes after a prompt take, the prompt's reading included, and what one byte costs at a place.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "blt/base/files.h"
#include "blt/base/tool.h"
#include "blt/generate/generator.h"
#include "blt/io/model_dir.h"

namespace blt {
namespace {

struct Options {
  std::filesystem::path model;
  std::filesystem::path text;
  int64_t prompt_ids = 128;
  int64_t max_bytes = 128;
  int64_t repeats = 5;
  bool follow_text = false;

  static void fields(auto& self, auto&& field) {
    field("model", self.model, "The directory of a Byte Latent Transformer.");
    field("text", self.text, "A file that prompts are cut from; repeated where it is too short.");
    field("prompt_ids", self.prompt_ids, "Ids of the prompt, the BOS included.", at_least(1));
    field("max_bytes", self.max_bytes, "Ids to generate.", at_least(1));
    field("follow_text", self.follow_text,
          "Feed the bytes of the text, not those that the model chooses: patches as long as the text's, "
          "anywhere in it.");
    field("repeats", self.repeats, "How often, after one run that is not counted.", at_least(1));
  }
  static constexpr Positional kPositional[] = {{"model", "MODEL_DIR"}};
  static constexpr std::string_view kRequired[] = {"text"};
};

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void run(const Options& options) {
  const LoadedModel loaded = load_model(options.model);
  Blt blt = loaded.blt;
  blt->eval();
  freeze(*blt);
  EntropyModel entropy_model = loaded.entropy_model;
  if (!entropy_model.is_empty()) {
    entropy_model->eval();
    freeze(*entropy_model);
  }
  const Generator generator(blt, entropy_model, make_patcher(loaded.config.patching));
  const std::string text = read_file(options.text);
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
  std::cout << nlohmann::ordered_json{{"prompt_ids", options.prompt_ids},
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
