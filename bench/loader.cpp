// How fast the loader is, and how long a trainer waits for it.
//
//   build/release/bench/loader chain --data text.jsonl.zst       read, decompress, parse, shuffle, cut by spaces, pack: one thread, no model
//   build/release/bench/loader wait --data text.jsonl.zst        a trainer of the tiny shape: training alone, entropies alone, both
//
// Prints one line of JSON.
#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/shapes.h"
#include "bench/timing.h"
#include "blt/base/memory.h"
#include "blt/data/loader.h"
#include "blt/model/blt.h"
#include "blt/model/linear.h"
#include "blt/train/trainer.h"

namespace blt::bench {
namespace {

struct Options {
  std::vector<std::string> data;
  int64_t batch_bytes = 16384, sequence_bytes = 4096, steps = 30, patcher_dim = 64, patcher_layers = 2;
  int64_t shuffle_sequences = 4096;
  double megabytes = 200;
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

nlohmann::json measure_chain(const Options& options) {
  DataConfig config = data_config(options);
  config.prefetch = 0;  // one thread
  config.shuffle_sequences = options.shuffle_sequences;
  const auto metrics = std::make_shared<LoaderMetrics>(config.sources);
  const auto loader = make_patch_loader(config, Pass::kTraining, make_patcher({SpacePatching(), {}}), nullptr,
                                        {.metrics = metrics});
  const auto most = static_cast<int64_t>(options.megabytes * 1e6);
  int64_t bytes = 0, batches = 0;
  metrics->take();
  const auto run = [&] {
    for (; bytes < most; ++batches) bytes += loader->next()->num_byte_targets;
  };
  double cpu = 0;
  const double wall = seconds([&] { cpu = cpu_seconds(run); });
  nlohmann::json result = {{"what", "chain"},
                           {"bytes", bytes},
                           {"batches", batches},
                           {"seconds", wall},
                           {"cpu_seconds", cpu},
                           {"mb_per_s", static_cast<double>(bytes) / wall / 1e6},
                           {"mb_per_cpu_s", static_cast<double>(bytes) / cpu / 1e6}};
  for (const auto& [name, value] : metrics->take()) result["loader"][name] = value;
  return result;
}

// A trainer that steps through what `loader` gives: seconds a step, and the share of them in which it waited.
struct Steps {
  double seconds = 0, waiting = 0;
};
Steps train(const DataConfig& config, const std::shared_ptr<EntropySource>& entropies,
            const std::shared_ptr<const Patcher>& patcher, int64_t steps) {
  const auto metrics = std::make_shared<LoaderMetrics>(config.sources);
  at::manual_seed(0);
  Blt model(shape("tiny"));
  TrainConfig training;
  training.steps = 1000000;
  TrainerParts parts;
  parts.model = trainable(model);
  parts.train = make_patch_loader(config, Pass::kTraining, patcher, entropies, {.metrics = metrics});
  Trainer trainer(training, std::move(parts));
  // Until what was made before the first step is used up, a loader that is too slow would not be noticed.
  for (int64_t i = 0; i < 2 * config.prefetch + 4; ++i) trainer.train_step();
  const int64_t waited = metrics->waited_nanoseconds;
  const double time = seconds([&] {
    for (int64_t i = 0; i < steps; ++i) trainer.train_step();
  });
  return {time / static_cast<double>(steps),
          1e-9 * static_cast<double>(metrics->waited_nanoseconds - waited) / time};
}

nlohmann::json measure_waiting(const Options& options) {
  at::set_num_threads(options.threads);
  DataConfig config = data_config(options);
  EntropyModelConfig shape_of_model;
  shape_of_model.dim = options.patcher_dim;
  shape_of_model.layers = options.patcher_layers;
  shape_of_model.heads = 4;
  at::manual_seed(1);
  EntropyModel model(shape_of_model);
  freeze(*model);
  EntropyPatching rule;
  EntropyModelSource source(model, {.batch_bytes = config.entropy_batch_bytes});
  rule.threshold = calibrate_on(config, {rule, {}}, source).threshold;
  const std::shared_ptr<const Patcher> patcher = make_patcher({rule, {}});

  // Entropies of a batch, by all threads of a loader that nobody else disturbs.
  config.entropy_cache.mib = 0;
  const auto alone =
      make_patch_loader(config, Pass::kTraining, patcher, make_entropies(config, model, false));
  for (int64_t i = 0; i < 2 * config.prefetch + 4; ++i) alone->next();
  const double entropies = seconds([&] {
                             for (int64_t i = 0; i < options.steps; ++i) alone->next();
                           }) /
                           static_cast<double>(options.steps);
  const Steps live = train(config, make_entropies(config, model, false), patcher, options.steps);
  config.entropy_cache.mib = 4096;
  const auto cached_source = make_entropies(config, model, false);
  {
    const auto fill = make_patch_loader(config, Pass::kTraining, patcher, cached_source);
    for (int64_t i = 0; i < options.steps + 8 * config.prefetch + 40; ++i) fill->next();
  }
  const Steps cached = train(config, cached_source, patcher, options.steps);
  return {{"what", "wait"},
          {"threads", options.threads},
          {"batch_bytes", options.batch_bytes},
          {"training_seconds", cached.seconds},
          {"cached_waiting_share", cached.waiting},
          {"entropy_seconds", entropies},
          {"live_seconds", live.seconds},
          {"live_waiting_share", live.waiting},
          {"live_efficiency", (cached.seconds + entropies) / live.seconds}};
}

}  // namespace
}  // namespace blt::bench

int main(int argc, char** argv) {
  blt::bench::Options options;
  CLI::App app("Times libblt's loader.");
  app.require_subcommand(1);
  CLI::App* chain = app.add_subcommand("chain", "files to batches on one thread, patches by spaces");
  CLI::App* wait =
      app.add_subcommand("wait", "how long a trainer of the tiny shape waits, entropies cached and live");
  for (CLI::App* command : {chain, wait}) {
    command->add_option("--data", options.data, "files of text")->required();
    command->add_option("--batch-bytes", options.batch_bytes, "bytes of a batch")->check(CLI::PositiveNumber);
    command->add_option("--sequence-bytes", options.sequence_bytes, "bytes of a sequence")
        ->check(CLI::PositiveNumber);
  }
  chain->add_option("--shuffle-sequences", options.shuffle_sequences, "sequences that are read ahead")
      ->check(CLI::NonNegativeNumber);
  chain->add_option("--megabytes", options.megabytes, "text to read")->check(CLI::PositiveNumber);
  wait->add_option("--steps", options.steps, "steps that are timed")->check(CLI::PositiveNumber);
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
