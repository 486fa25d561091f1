// Times training steps (or forward passes) of a shape of the peer, patch boundaries given, and how long their matrix products take alone.
//
//   build/release/bench/train_step --shape small --rows 4 --bytes 1024
//
// Prints one line of JSON. bench/beside_peer runs it in turn with transformers' port.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "bench/products.h"
#include "bench/profile.h"
#include "bench/shapes.h"
#include "bench/timing.h"
#include "blt/base/memory.h"
#include "blt/model/blt.h"
#include "blt/train/trainer.h"

namespace blt::bench {
namespace {

struct Options {
  std::string shape = "small", text_file;
  int64_t rows = 4, bytes = 1024, iterations = 5, warm = 1;
  int threads = 2;
  double mean_patch = 4.5;
  bool forward_only = false, products = false, profile = false, give_back = false;
};

// The same batch for ever.
class SameBatch : public Stage<Batch> {
 public:
  explicit SameBatch(Batch batch) : batch_(std::move(batch)) {}
  std::optional<Batch> next() override { return batch_; }
  void save(StateWriter&) const override {}
  void load(const StateReader&) override {}

 private:
  Batch batch_;
};

rusage usage() {
  rusage result{};
  getrusage(RUSAGE_SELF, &result);
  return result;
}

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
}

std::string read_text(const std::string& path) {
  if (path.empty()) return kText;
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  TORCH_CHECK(file && !text.str().empty(), path, " cannot be read, or is empty");
  return text.str();
}

nlohmann::json measure(const Options& options) {
  at::set_num_threads(options.threads);
  at::manual_seed(0);
  const Batch batch =
      bench::batch(read_text(options.text_file), options.rows, options.bytes, options.mean_patch);
  Blt model(shape(options.shape));

  TrainConfig config;
  config.steps = 1000000;
  TrainerParts parts;
  parts.model = trainable(model);
  parts.train = std::make_unique<SameBatch>(batch);
  Trainer trainer(config, std::move(parts));
  double loss = 0;
  const auto train = [&] { loss = trainer.train_step().loss.item<double>(); };
  const auto forward = [&] {
    const at::NoGradGuard no_grad;
    model->forward(batch);
  };
  const std::function<void()> run = options.forward_only ? std::function<void()>(forward) : train;
  if (options.forward_only) model->eval();

  for (int64_t i = 0; i < options.warm; ++i) run();
  std::vector<double> times;
  const rusage before = usage();
  for (int64_t i = 0; i < options.iterations; ++i) times.push_back(seconds(run));
  const rusage after = usage();
  const auto per_step = [&](double total) { return total / static_cast<double>(options.iterations); };
  const double peak = static_cast<double>(after.ru_maxrss) / 1024,
               ids = static_cast<double>(options.rows * options.bytes);
  nlohmann::json result = {
      {"what", options.forward_only ? "eval" : "train"},
      {"shape", options.shape},
      {"rows", options.rows},
      {"bytes", options.bytes},
      {"threads", options.threads},
      {"patches", batch.patches.count},
      {"bytes_per_s", ids / median(times)},
      {"seconds", median(times)},
      {"seconds_min", *std::min_element(times.begin(), times.end())},
      {"seconds_max", *std::max_element(times.begin(), times.end())},
      {"user_seconds", per_step(seconds_of(after.ru_utime) - seconds_of(before.ru_utime))},
      {"system_seconds", per_step(seconds_of(after.ru_stime) - seconds_of(before.ru_stime))},
      {"page_faults", per_step(static_cast<double>(after.ru_minflt - before.ru_minflt))},
      {"peak_mib", peak},
      {"loss", loss}};
  if (options.profile) {
    at::set_num_threads(1);
    run();
    for (const OperatorTime& time : profile(run))
      result["profile"].push_back({{"name", time.name}, {"calls", time.calls}, {"ms", time.seconds * 1e3}});
    at::set_num_threads(options.threads);
  }
  if (!options.products) return result;

  Products products(run);
  products.repeat();  // warm
  std::vector<double> step, alone, share;
  for (int64_t i = 0; i < options.iterations; ++i) {
    alone.push_back(seconds([&] { products.repeat(); }));
    step.push_back(seconds(run));
    share.push_back(alone.back() / step.back());
  }
  result["products"] = {{"count", products.count()},
                        {"gflop", products.flops() / 1e9},
                        {"seconds", median(alone)},
                        {"gflop_per_s", products.flops() / median(alone) / 1e9},
                        {"step_seconds", median(step)},
                        {"share_of_bound", median(share)},
                        {"share_min", *std::min_element(share.begin(), share.end())},
                        {"share_max", *std::max_element(share.begin(), share.end())}};
  return result;
}

}  // namespace
}  // namespace blt::bench

int main(int argc, char** argv) {
  blt::bench::Options options;
  CLI::App app("Times training steps of libblt.");
  app.add_option("--shape", options.shape, "small or tiny")->check(CLI::IsMember({"small", "tiny"}));
  app.add_option("--text", options.text_file, "file whose bytes are the data (default: some English)");
  app.add_option("--rows", options.rows, "sequences in a batch")->check(CLI::PositiveNumber);
  app.add_option("--bytes", options.bytes, "ids of each, BOS included")->check(CLI::Range(3, 1 << 24));
  app.add_option("--iterations", options.iterations, "steps that are timed")->check(CLI::PositiveNumber);
  app.add_option("--warm", options.warm, "steps before them")->check(CLI::NonNegativeNumber);
  app.add_option("--threads", options.threads, "threads")->check(CLI::PositiveNumber);
  app.add_option("--mean-patch", options.mean_patch, "bytes a patch, on average")
      ->check(CLI::Range(1.0, 1e6));
  app.add_flag("--forward-only", options.forward_only, "no gradients: the forward pass alone");
  app.add_flag("--products", options.products,
               "time the step's matrix products alone too, in turn with steps");
  app.add_flag("--profile", options.profile,
               "CPU time of each operator in a step on one thread, without those it calls");
  app.add_flag("--give-back", options.give_back,
               "let freed memory go back to the system (blt/base/memory.h)");
  CLI11_PARSE(app, argc, argv);
  if (!options.give_back) blt::keep_freed_memory();
  try {
    std::cout << blt::bench::measure(options).dump() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "train_step: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
