// Times the frozen entropy model of a shape of the peer, patch starts included, on rows of text: in turn on each of several layouts.
//
//   build/release/bench/entropies --shape small --layouts 4x1024 1x8192
//
// Prints one line of JSON. bench/beside_peer runs it in turn with transformers' port.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
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
#include "blt/model/linear.h"
#include "blt/patching/patcher.h"

namespace blt::bench {
namespace {

struct Options {
  std::string shape = "small", text_file;
  std::vector<std::string> layouts = {"4x1024"};
  int64_t iterations = 5, warm = 1;
  int threads = 2;
  bool profile = false;
};

// Sequences of a layout ROWSxBYTES, cut from a text that repeats; and the times that their entropies and patches took.
struct Layout {
  std::string name;
  std::vector<std::vector<int32_t>> sequences = {};
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
  EntropyModel model(entropy_shape(options.shape));
  freeze(*model);
  EntropyModelSource source(model, {.reset_at_newline = false, .batch_bytes = int64_t{1} << 30});
  EntropyPatching rule;
  rule.threshold = 5.0;  // the peer's
  const std::unique_ptr<Patcher> patcher = make_patcher({rule, {}});

  std::vector<Layout> layouts;
  const std::string text = options.text_file.empty() ? kText : read_file(options.text_file);
  for (const std::string& name : options.layouts) layouts.emplace_back(name, text);
  const auto run = [&](const Layout& layout) {
    const std::vector<std::vector<float>> entropies = source.entropies(layout.sequences);
    for (size_t i = 0; i < entropies.size(); ++i) patcher->starts(layout.sequences[i], entropies[i]);
  };
  for (int64_t i = 0; i < options.warm + options.iterations; ++i)
    for (Layout& layout : layouts) {
      const double time = seconds([&] { run(layout); });
      if (i >= options.warm) layout.times.push_back(time);
    }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  nlohmann::json result = {{"what", "entropy"},
                           {"shape", options.shape},
                           {"threads", options.threads},
                           {"peak_mib", static_cast<double>(usage.ru_maxrss) / 1024}};
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
      for (const OperatorTime& time : profile([&] { run(layout); }))
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
  app.add_option("--shape", options.shape, "small or tiny")->check(CLI::IsMember({"small", "tiny"}));
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
