// Whether the loader's memory grows over a long run: streams text to batches, entropies and models left out, and fits a line through the
// resident memory of the last 80% of the run.
//
//   build/release/bench/loader_memory --data text.jsonl.zst --copies 1000 --gigabytes 100
//
// Prints one line of JSON.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/timing.h"
#include "blt/base/memory.h"
#include "blt/data/loader.h"

namespace blt::bench {
namespace {

struct Options {
  std::vector<std::string> data;
  int64_t copies = 1, batch_bytes = 16384, sequence_bytes = 4096, shuffle_sequences = 4096, samples = 1000;
  double gigabytes = 100;
  std::optional<std::filesystem::path> trace;
};

double resident_mib() {
  int64_t size = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  return static_cast<double>(resident * sysconf(_SC_PAGESIZE)) / (1 << 20);
}

// y = slope x + …, by least squares, and the standard error of the slope were the errors independent.
struct Line {
  double slope = 0, error = 0;
};
Line fit(const std::vector<double>& x, const std::vector<double>& y) {
  const auto count = static_cast<double>(x.size());
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    mean_x += x[i] / count;
    mean_y += y[i] / count;
  }
  for (size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    xy += (x[i] - mean_x) * (y[i] - mean_y);
    yy += (y[i] - mean_y) * (y[i] - mean_y);
  }
  const double slope = xy / xx;
  return {slope, std::sqrt(std::max(0.0, yy - slope * xy) / (count - 2) / xx)};
}

nlohmann::json measure(const Options& options) {
  DataConfig config;
  config.sources.resize(1);
  for (int64_t copy = 0; copy < options.copies; ++copy)
    for (const std::string& path : options.data) config.sources[0].paths.emplace_back(path);
  config.sequence_bytes = options.sequence_bytes;
  config.batch_bytes = options.batch_bytes;
  config.shuffle_sequences = options.shuffle_sequences;
  const auto metrics = std::make_shared<LoaderMetrics>(config.sources);
  const auto loader = make_patch_loader(config, Pass::kTraining, make_patcher({SpacePatching(), {}}), nullptr,
                                        {.metrics = metrics});
  std::vector<double> gigabytes, resident;
  std::ofstream trace;
  if (options.trace) trace.open(*options.trace);
  const double every = options.gigabytes / static_cast<double>(options.samples);
  int64_t bytes = 0, documents = 0;
  const double time = seconds([&] {
    while (static_cast<int64_t>(gigabytes.size()) < options.samples) {
      bytes += loader->next()->num_byte_targets;
      const double now = static_cast<double>(bytes) / 1e9;
      if (now < every * static_cast<double>(gigabytes.size() + 1)) continue;
      gigabytes.push_back(now);
      resident.push_back(resident_mib());
      trace << gigabytes.back() << '\t' << resident.back() << std::endl;
    }
  });
  documents = metrics->sources[0].documents;
  const auto first = static_cast<int64_t>(gigabytes.size()) / 5;
  gigabytes.erase(gigabytes.begin(), gigabytes.begin() + first);
  resident.erase(resident.begin(), resident.begin() + first);
  const Line line = fit(gigabytes, resident);
  return {{"what", "memory"},
          {"gigabytes", static_cast<double>(bytes) / 1e9},
          {"documents", documents},
          {"epochs", metrics->sources[0].epochs.load()},
          {"seconds", time},
          {"mb_per_s", static_cast<double>(bytes) / time / 1e6},
          {"samples", resident.size()},
          {"resident_mib_min", *std::ranges::min_element(resident)},
          {"resident_mib_median", median(resident)},
          {"resident_mib_max", *std::ranges::max_element(resident)},
          {"slope_mib_per_gigabyte", line.slope},
          {"slope_standard_error", line.error},
          {"growth_mib", line.slope * (gigabytes.back() - gigabytes.front())}};
}

}  // namespace
}  // namespace blt::bench

int main(int argc, char** argv) {
  blt::bench::Options options;
  CLI::App app("Watches the memory of libblt's loader over a long run.");
  app.add_option("--data", options.data, "files of text")->required();
  app.add_option("--copies", options.copies, "how often each file is named: so many files in a pass")
      ->check(CLI::PositiveNumber);
  app.add_option("--gigabytes", options.gigabytes, "text to read, of as many passes as that takes")
      ->check(CLI::PositiveNumber);
  app.add_option("--samples", options.samples, "how often memory is looked at")
      ->check(CLI::Range(10, 1000000));
  app.add_option("--trace", options.trace, "a file for the samples as they are taken: gigabytes and MiB");
  app.add_option("--batch-bytes", options.batch_bytes, "bytes of a batch")->check(CLI::PositiveNumber);
  app.add_option("--sequence-bytes", options.sequence_bytes, "bytes of a sequence")
      ->check(CLI::PositiveNumber);
  app.add_option("--shuffle-sequences", options.shuffle_sequences, "sequences that are read ahead")
      ->check(CLI::NonNegativeNumber);
  CLI11_PARSE(app, argc, argv);
  blt::keep_freed_memory();
  try {
    std::cout << blt::bench::measure(options).dump() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "loader_memory: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
