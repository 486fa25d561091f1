// How fast the loader is, and how long a trainer waits for it.
//
//   build/release/bench/loader chain --data text.jsonl.zst       read, decompress, parse, shuffle, cut by spaces, pack: one thread, no model
//   build/release/bench/loader wait --data text.jsonl.zst        a trainer: training alone, entropies alone, both
//   build/cuda/bench/loader wait --data text.jsonl.zst --shape 1b --compute bfloat16 --device cuda --entropy-device cuda --entropy-compute bfloat16
//       --patcher-dim 768 --patcher-layers 14       the same on a GPU, here with both models on one (not yet run)
//
// Prints one line of JSON.
#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/shapes.h"
#include "bench/timing.h"
#include "blt/base/memory.h"
#include "blt/data/loader.h"
#include "blt/model/blt.h"
#include "blt/model/device.h"
#include "blt/model/linear.h"
#include "blt/train/trainer.h"

namespace blt::bench {
namespace {

struct Options {
  std::vector<std::string> data;
  std::string shape = "tiny", device = "cpu", compute = "float32", entropy_device = "cpu",
              entropy_compute = "float32";
  int64_t batch_bytes = 16384, sequence_bytes = 4096, steps = 30, patcher_dim = 64, patcher_layers = 2;
  int64_t shuffle_sequences = 4096;
  double megabytes = 200;
  int64_t rounds = 5;
  int threads = 2;
};

DataConfig data_config(const Options& options) {
  DataConfig config;
  config.sources.resize(1);
  for (const std::string& path : options.data) config.sources[0].paths.emplace_back(path);
  config.sequence_bytes = options.sequence_bytes;
  config.batch_bytes = options.batch_bytes;
  return config;
}

nlohmann::json spread(const std::vector<double>& values) {
  return {{"median", median(values)},
          {"min", *std::ranges::min_element(values)},
          {"max", *std::ranges::max_element(values)}};
}

// The chain, and its beginnings alone, whose costs are in the whole too: in turn, round after round.
nlohmann::json measure_chain(const Options& options) {
  DataConfig config = data_config(options);
  config.prefetch = 0;  // one thread
  config.shuffle_sequences = 0;
  const std::unique_ptr<Stage<Sequence>> read = make_sequences(config, Pass::kTraining);
  config.shuffle_sequences = options.shuffle_sequences;
  const std::unique_ptr<Stage<Sequence>> shuffled = make_sequences(config, Pass::kTraining);
  const auto metrics = std::make_shared<LoaderMetrics>(config.sources);
  const auto loader = make_patch_loader(config, Pass::kTraining, make_patcher({SpacePatching(), {}}), nullptr,
                                        {.metrics = metrics});
  struct Part {
    const char* name;
    std::function<int64_t()> next;  // bytes of text
    std::vector<double> mb_per_s = {}, mb_per_cpu_s = {};
  };
  const auto bytes_of = [](const Sequence& sequence) { return static_cast<int64_t>(sequence.bytes.size()); };
  std::vector<Part> parts{{"read", [&] { return bytes_of(*read->next()); }},
                          {"shuffled", [&] { return bytes_of(*shuffled->next()); }},
                          {"chain", [&] { return loader->next()->num_byte_targets; }}};
  const auto most = static_cast<int64_t>(options.megabytes * 1e6);
  for (int64_t round = 0; round < options.rounds; ++round)
    for (Part& part : parts) {
      int64_t bytes = 0;
      double cpu = 0;
      const double wall = seconds([&] {
        cpu = cpu_seconds([&] {
          while (bytes < most) bytes += part.next();
        });
      });
      part.mb_per_s.push_back(static_cast<double>(bytes) / wall / 1e6);
      part.mb_per_cpu_s.push_back(static_cast<double>(bytes) / cpu / 1e6);
    }
  nlohmann::json result = {{"what", "chain"}, {"rounds", options.rounds}, {"megabytes", options.megabytes}};
  for (const Part& part : parts)
    result[part.name] = {{"mb_per_s", spread(part.mb_per_s)}, {"mb_per_cpu_s", spread(part.mb_per_cpu_s)}};
  for (const auto& [name, value] : metrics->take()) result["loader"][name] = value;
  return result;
}

Compute compute_named(const std::string& name) {
  return name == "bfloat16" ? Compute::kBfloat16 : Compute::kFloat32;
}

// A loader, and what a trainer waited for it.
struct Text {
  std::shared_ptr<LoaderMetrics> metrics;
  std::unique_ptr<Stage<Batch>> loader;

  Text(const DataConfig& config, const std::shared_ptr<EntropySource>& entropies,
       const std::shared_ptr<const Patcher>& patcher, at::Device device)
      : metrics(std::make_shared<LoaderMetrics>(config.sources)),
        loader(make_patch_loader(config, Pass::kTraining, patcher, entropies,
                                 {.metrics = metrics, .device = device})) {}
  double waited_seconds() const { return 1e-9 * static_cast<double>(metrics->waited_nanoseconds); }
};

// Batches of the text that is chosen at the time. For one trainer: two of a large shape may not fit on a device.
class ChosenText : public Stage<Batch> {
 public:
  explicit ChosenText(std::shared_ptr<Text*> chosen) : chosen_(std::move(chosen)) {}
  std::optional<Batch> next() override { return (*chosen_)->loader->next(); }
  void save(StateWriter&) const override {}  // nothing is saved
  void load(const StateReader&) override {}

 private:
  std::shared_ptr<Text*> chosen_;
};

class Training {
 public:
  Training(const Options& options, at::Device device) {
    at::manual_seed(0);
    const Blt model = make_model(shape(options.shape), device);
    TrainConfig training;
    training.steps = 1000000;
    training.compute = compute_named(options.compute);
    TrainerParts parts;
    parts.model = trainable(model);
    parts.train = std::make_unique<ChosenText>(text_);
    trainer_ = std::make_unique<Trainer>(training, std::move(parts));
  }
  // Steps on `text`, to the end of the last one's work.
  void steps(Text& text, int64_t count) {
    *text_ = &text;
    StepStats last;
    for (int64_t i = 0; i < count; ++i) last = trainer_->train_step();
    last.loss.item<float>();
  }

 private:
  std::shared_ptr<Text*> text_ = std::make_shared<Text*>(nullptr);
  std::unique_ptr<Trainer> trainer_;
};

// Training with entropies at hand, entropies without training, and both at once on the same cores: in turn, round after round.
nlohmann::json measure_waiting(const Options& options) {
  at::set_num_threads(options.threads);
  const at::Device device = find_device(options.device, "--device " + options.device);
  DataConfig config = data_config(options);
  config.entropy_device = options.entropy_device;
  config.entropy_compute = compute_named(options.entropy_compute);
  EntropyModelConfig shape_of_model;
  shape_of_model.dim = options.patcher_dim;
  shape_of_model.layers = options.patcher_layers;
  shape_of_model.heads = std::max<int64_t>(4, options.patcher_dim / 64);
  at::manual_seed(1);
  EntropyModel model(shape_of_model);
  freeze(*model);
  config.entropy_cache.mib = 4096;
  const auto kept = make_entropies(config, model, false);
  EntropyPatching rule;
  rule.threshold = calibrate_on(config, {rule, {}}, *kept).threshold;
  const std::shared_ptr<const Patcher> patcher = make_patcher({rule, {}});
  // Until what was made before a round is used up, a loader that is too slow would not be noticed: blocks and batches ahead (loader.cpp),
  // and those under way.
  const int64_t warm = 2 * config.prefetch + 3 * entropy_threads(config) + 4;
  {
    const auto fill = make_patch_loader(config, Pass::kTraining, patcher, kept);
    for (int64_t i = 0; i < options.rounds * (options.steps + warm) + 2 * warm; ++i) fill->next();
  }
  Training training(options, device);
  Text cached(config, kept, patcher, device);
  config.entropy_cache.mib = 0;
  Text live(config, make_entropies(config, model, false), patcher, device);
  const auto entropies =
      make_patch_loader(config, Pass::kTraining, patcher, make_entropies(config, model, false));

  const auto seconds_a_step = [&](const auto& steps) {
    return seconds([&] { steps(options.steps); }) / static_cast<double>(options.steps);
  };
  const auto train = [&](Text& text, std::vector<double>& times, std::vector<double>& waiting) {
    const auto steps = [&](int64_t count) { training.steps(text, count); };
    steps(warm);
    const double waited = text.waited_seconds();
    times.push_back(seconds_a_step(steps));
    waiting.push_back((text.waited_seconds() - waited) / static_cast<double>(options.steps) / times.back());
  };
  const auto make = [&](int64_t count) {
    for (int64_t i = 0; i < count; ++i) entropies->next();
  };
  std::vector<double> cached_seconds, cached_waiting, entropy_seconds, live_seconds, live_waiting, efficiency,
      cost;
  for (int64_t round = 0; round < options.rounds; ++round) {
    train(cached, cached_seconds, cached_waiting);
    make(warm);
    entropy_seconds.push_back(seconds_a_step(make));
    train(live, live_seconds, live_waiting);
    efficiency.push_back((cached_seconds.back() + entropy_seconds.back()) / live_seconds.back());
    cost.push_back(live_seconds.back() / cached_seconds.back() - 1);
  }
  return {{"what", "wait"},
          {"shape", options.shape},
          {"device", device.str()},
          {"compute", options.compute},
          {"entropy_device", options.entropy_device},
          {"entropy_compute", options.entropy_compute},
          {"threads", options.threads},
          {"batch_bytes", options.batch_bytes},
          {"rounds", options.rounds},
          {"steps", options.steps},
          {"training_seconds", spread(cached_seconds)},
          {"cached_waiting_share", spread(cached_waiting)},
          {"entropy_seconds", spread(entropy_seconds)},
          {"live_seconds", spread(live_seconds)},
          {"live_waiting_share", spread(live_waiting)},
          {"live_efficiency", spread(efficiency)},
          {"live_cost", spread(cost)}};
}

}  // namespace
}  // namespace blt::bench

int main(int argc, char** argv) {
  blt::bench::Options options;
  CLI::App app("Times libblt's loader.");
  app.require_subcommand(1);
  CLI::App* chain = app.add_subcommand("chain", "files to batches on one thread, patches by spaces");
  CLI::App* wait = app.add_subcommand("wait", "how long a trainer waits, entropies cached and live");
  for (CLI::App* command : {chain, wait}) {
    command->add_option("--data", options.data, "files of text")->required();
    command->add_option("--rounds", options.rounds, "how often each is measured, in turn")
        ->check(CLI::PositiveNumber);
    command->add_option("--batch-bytes", options.batch_bytes, "bytes of a batch")->check(CLI::PositiveNumber);
    command->add_option("--sequence-bytes", options.sequence_bytes, "bytes of a sequence")
        ->check(CLI::PositiveNumber);
  }
  chain->add_option("--shuffle-sequences", options.shuffle_sequences, "sequences that are read ahead")
      ->check(CLI::NonNegativeNumber);
  chain->add_option("--megabytes", options.megabytes, "text that each part reads in a round")
      ->check(CLI::PositiveNumber);
  wait->add_option("--shape", options.shape, "the trainer's: 1b, 400m, small or tiny")
      ->check(CLI::IsMember({"1b", "400m", "small", "tiny"}));
  wait->add_option("--device", options.device,
                   "where it trains: cpu, cuda, or one of several such as cuda:1");
  wait->add_option("--entropy-device", options.entropy_device, "where the entropy model runs, likewise");
  const CLI::IsMember is_type({"float32", "bfloat16"});
  wait->add_option("--compute", options.compute, "the type of the training: float32 or bfloat16")
      ->check(is_type);
  wait->add_option("--entropy-compute", options.entropy_compute, "the type of the entropies")->check(is_type);
  wait->add_option("--steps", options.steps, "steps that are timed in a round")->check(CLI::PositiveNumber);
  wait->add_option("--threads", options.threads, "threads of the trainer, and of the loader")
      ->check(CLI::PositiveNumber);
  wait->add_option("--patcher-dim", options.patcher_dim, "width of the entropy model")
      ->check(CLI::PositiveNumber);
  wait->add_option("--patcher-layers", options.patcher_layers, "its layers")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  blt::keep_freed_memory();
  try {
    std::cout << (chain->parsed() ? blt::bench::measure_chain(options) : blt::bench::measure_waiting(options))
                     .dump()
              << "\n";
  } catch (const std::exception& error) {
    std::cerr << "loader: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
