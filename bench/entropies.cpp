// Times the frozen entropy model of a shape of the peer, patch starts included, on rows of text: in turn on each of several layouts.
//
//   build/release/bench/entropies --shape small --layouts 4x1024 1x8192
//   build/cuda/bench/entropies --shape 100m --device cuda --dtype bfloat16 --at-once 2 --layouts 16x1024
//
// Prints one line of JSON. bench/beside_peer runs it in turn with transformers' port.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <future>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/profile.h"
#include "bench/shapes.h"
#include "bench/timing.h"
#include "blt/base/files.h"
#include "blt/base/memory.h"
#include "blt/data/entropy_model_source.h"
#include "blt/model/device.h"
#include "blt/model/linear.h"
#include "blt/ops/arithmetic.h"
#include "blt/patching/patcher.h"

namespace blt::bench {
namespace {

constexpr int64_t kPassesOfAThread = 8;

struct Options {
  std::string shape = "small", text_file, device = "cpu", dtype = "float32";
  std::vector<std::string> layouts = {"4x1024"};
  int64_t iterations = 5, warm = 1;
  int threads = 2, at_once = 1;
  bool profile = false;
};

// Sequences of a layout ROWSxBYTES, cut from a text that repeats; what computes their entropies, all in one pass; and the times that it took,
// with the patches.
struct Layout {
  std::string name;
  std::vector<std::vector<int32_t>> sequences = {};
  std::shared_ptr<EntropySource> source = nullptr;
  std::vector<double> times = {};

  Layout(const std::string& layout, const std::string& text) : name(layout) {
    long long rows = 0, bytes = 0;
    TORCH_CHECK(std::sscanf(layout.c_str(), "%lldx%lld", &rows, &bytes) == 2 && rows >= 1 && bytes >= 3 &&
                    bytes < 1 << 24,
                "a layout is ROWSxBYTES (4x1024), not ", layout);
    const Batch cut = batch(text, rows, bytes, 4.5);
    const int32_t* ids = cut.bytes.const_data_ptr<int32_t>();
    for (int64_t row = 0; row < rows; ++row)
      sequences.emplace_back(ids + row * bytes, ids + (row + 1) * bytes);
  }
  double bytes() const { return static_cast<double>(sequences.size() * sequences[0].size()); }
};

nlohmann::json measure(const Options& options) {
  at::set_num_threads(options.threads);
  at::manual_seed(0);
  const at::Device device = find_device(options.device, "--device " + options.device);
  EntropyModel model(entropy_shape(options.shape));
  model->to(device, options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat);
  freeze(*model);
  EntropyPatching rule;
  rule.threshold = 5.0;  // the peer's
  const std::unique_ptr<Patcher> patcher = make_patcher({rule, {}});

  std::vector<Layout> layouts;
  const std::string text = options.text_file.empty() ? kText : read_file(options.text_file);
  for (const std::string& name : options.layouts) {
    Layout& layout = layouts.emplace_back(name, text);
    EntropyModelSource::Options how{.batch_bytes = int64_t{1} << 30};
    if (!device.is_cpu()) {
      how.rows = (static_cast<int64_t>(layout.bytes()) + 255) / 256 * 256;
      how.at_once = options.at_once;
    }
    layout.source = std::make_shared<EntropyModelSource>(model, how);
  }
  const auto pass = [&](const Layout& layout) {
    const std::vector<std::vector<float>> entropies = layout.source->entropies(layout.sequences);
    for (size_t i = 0; i < entropies.size(); ++i) patcher->starts(layout.sequences[i], entropies[i]);
  };
  // As many passes after each other in each of the threads that ask at once, as the loader's do.
  const auto run = [&](const Layout& layout) {
    if (options.at_once == 1) return pass(layout);
    std::vector<std::future<void>> threads;
    for (int i = 0; i < options.at_once; ++i)
      threads.push_back(std::async(std::launch::async, [&] {
        for (int64_t times = 0; times < kPassesOfAThread; ++times) pass(layout);
      }));
    for (std::future<void>& thread : threads) thread.get();
  };
  const double passes = options.at_once == 1 ? 1 : static_cast<double>(options.at_once * kPassesOfAThread);
  for (int64_t i = 0; i < options.warm + options.iterations; ++i)
    for (Layout& layout : layouts) {
      const double time = seconds([&] { run(layout); }) / passes;
      if (i >= options.warm) layout.times.push_back(time);
    }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  nlohmann::json result = {
      {"what", "entropy"},          {"shape", options.shape},
      {"device", device.str()},     {"arithmetic", ops::arithmetic(device)},
      {"dtype", options.dtype},     {"threads", options.threads},
      {"at_once", options.at_once}, {"peak_mib", static_cast<double>(usage.ru_maxrss) / 1024}};
  for (const Layout& layout : layouts) {
    // Beside the first layout, pass by pass.
    std::vector<double> ratios;
    for (size_t i = 0; i < layout.times.size(); ++i)
      ratios.push_back(layout.times[i] / layout.bytes() / (layouts[0].times[i] / layouts[0].bytes()));
    nlohmann::json of_layout = {
        {"bytes_per_s", layout.bytes() / median(layout.times)},
        {"ns_a_byte", 1e9 * median(layout.times) / layout.bytes()},
        {"ns_a_byte_min", 1e9 * *std::ranges::min_element(layout.times) / layout.bytes()},
        {"ns_a_byte_max", 1e9 * *std::ranges::max_element(layout.times) / layout.bytes()},
        {"time_ratio", median(ratios)}};
    if (options.profile) {
      at::set_num_threads(1);
      for (const OperatorTime& time : profile([&] { pass(layout); }))
        of_layout["profile"].push_back(
            {{"name", time.name}, {"calls", time.calls}, {"ms", time.seconds * 1e3}});
      at::set_num_threads(options.threads);
    }
    result["layouts"][layout.name] = std::move(of_layout);
  }
  result["bytes_per_s"] = result["layouts"][options.layouts[0]]["bytes_per_s"];
  return result;
}

}  // namespace
}  // namespace blt::bench

int main(int argc, char** argv) {
  blt::bench::Options options;
  CLI::App app("Times libblt's frozen entropy model.");
  app.add_option("--shape", options.shape, "100m (the paper's), small or tiny")
      ->check(CLI::IsMember({"100m", "small", "tiny"}));
  app.add_option("--device", options.device, "cpu, cuda, or one of several such as cuda:1");
  app.add_option("--dtype", options.dtype, "float32 or bfloat16")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  app.add_option("--at-once", options.at_once,
                 "threads that ask for entropies at once; the loader's default on a device is 2")
      ->check(CLI::PositiveNumber);
  app.add_option("--text", options.text_file, "file whose bytes are the data (default: some English)");
  app.add_option("--layouts", options.layouts, "ROWSxBYTES each, timed in turn");
  app.add_option("--iterations", options.iterations, "passes that are timed")->check(CLI::PositiveNumber);
  app.add_option("--warm", options.warm, "passes before them")->check(CLI::NonNegativeNumber);
  app.add_option("--threads", options.threads, "threads")->check(CLI::PositiveNumber);
  app.add_flag("--profile", options.profile,
               "CPU time of each operator in a pass on one thread, without those it calls");
  CLI11_PARSE(app, argc, argv);
  blt::keep_freed_memory();
  try {
    std::cout << blt::bench::measure(options).dump() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "entropies: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
