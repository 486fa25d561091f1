// Times training steps (or forward passes) of a shape of the peer, patch boundaries given, and how long their matrix products take alone.
//
//   build/release/bench/train_step --shape small --rows 4 --bytes 1024
//   build/cuda/bench/train_step --device cuda --dtype bfloat16 --shape 1b --rows 8 --bytes 4096        not yet run
//
// Prints one line of JSON: bytes/s; what a large matrix product of that type reaches on the device, in the same run, and the model's FLOPs as a
// part of that; the most memory. bench/beside_peer and tools/gpu_check run it in turn with transformers' port. Each step is waited for, as the
// port's are; on a GPU, "seconds_unwaited" is a step's time where only the last of them is.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
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
#include "blt/model/device.h"
#include "blt/model/report.h"
#include "blt/ops/arithmetic.h"
#include "blt/train/trainer.h"

namespace blt::bench {
namespace {

struct Options {
  std::string shape = "small", text_file, device = "cpu", dtype = "float32";
  int64_t rows = 4, bytes = 1024, iterations = 5, warm = 1;
  int threads = 2;
  double mean_patch = 4.5;
  bool forward_only = false, small_tables = false, products = false, profile = false, give_back = false,
       cuda_graph = false;
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

// Of tensors on a device; the most so far, and from now on.
class DeviceMemory {
 public:
  explicit DeviceMemory(at::Device device) : device_(device) {
    if (!device.is_cpu()) device_.set_index(device.has_index() ? device.index() : 0);
  }
  void restart() const {
    if (device_.is_cpu()) return;
    c10::getDeviceAllocator(device_.type())->emptyCache();
    c10::getDeviceAllocator(device_.type())->resetPeakStats(device_.index());
  }
  double peak_mib() const {
    if (device_.is_cpu()) return static_cast<double>(usage().ru_maxrss) / 1024;
    const auto stats = c10::getDeviceAllocator(device_.type())->getDeviceStats(device_.index());
    constexpr auto kAll = static_cast<size_t>(c10::CachingDeviceAllocator::StatType::AGGREGATE);
    return static_cast<double>(stats.allocated_bytes[kAll].peak) / (1 << 20);
  }

 private:
  at::Device device_;
};

nlohmann::json measure(const Options& options) {
  at::set_num_threads(options.threads);
  const at::Device device = find_device(options.device, "--device " + options.device);
  const bool is_bfloat16 = options.dtype == "bfloat16";
  const DeviceMemory memory(device);
  const double product_rate = product_flops_per_second(device, is_bfloat16 ? at::kBFloat16 : at::kFloat);
  memory.restart();
  at::manual_seed(0);
  const std::vector<PatchedSequence> sequences =
      bench::sequences(read_text(options.text_file), options.rows, options.bytes, options.mean_patch);
  const Batch batch =
      (options.cuda_graph ? fill_batch(sequences, sizes_around(sequences)) : Batch::pack(sequences))
          .to(device);
  const int64_t patches = batch.patches.count - batch.num_filler_patches;
  Blt model = make_model(shape(options.shape), device);
  const double flops_a_byte = flops_per_byte(
      *model,
      {.sequence_bytes = static_cast<double>(options.bytes),
       .mean_patch_bytes = static_cast<double>(options.rows * options.bytes) / static_cast<double>(patches)});

  TrainConfig config;
  config.steps = 1000000;
  config.compute = is_bfloat16 ? Compute::kBfloat16 : Compute::kFloat32;
  config.cuda_graph = options.cuda_graph;
  if (options.small_tables) {
    config.optimizer.table_moments = TableMoments::kBfloat16;
    config.optimizer.table_second_moment = SecondMoment::kRow;
  }
  TrainerParts parts;
  parts.model = trainable(model);
  parts.train = std::make_unique<SameBatch>(batch);
  Trainer trainer(config, std::move(parts));
  at::Tensor last;  // of what was begun last, its loss or a logit
  const auto train = [&] { last = trainer.train_step().loss; };
  const auto forward = [&] {
    const at::NoGradGuard no_grad;
    last = model->forward(batch)[0][0];
  };
  const std::function<void()> begin = options.forward_only ? std::function<void()>(forward) : train;
  double loss = 0;
  const auto finish = [&] { loss = last.item<double>(); };
  const auto run = [&] {
    begin();
    finish();
  };
  if (options.forward_only) model->eval();

  // A graph is recorded in the third step.
  for (int64_t i = 0; i < std::max<int64_t>(options.warm, options.cuda_graph ? 3 : 0); ++i) run();
  std::vector<double> times;
  const rusage before = usage();
  for (int64_t i = 0; i < options.iterations; ++i) times.push_back(seconds(run));
  const rusage after = usage();
  const auto per_step = [&](double total) { return total / static_cast<double>(options.iterations); };
  std::optional<double> unwaited;  // the CPU works while the host waits
  if (!device.is_cpu())
    unwaited = per_step(seconds([&] {
      for (int64_t i = 0; i < options.iterations; ++i) begin();
      finish();
    }));
  const double peak = memory.peak_mib(), ids = static_cast<double>(options.rows * options.bytes),
               flops = flops_a_byte * ids * (options.forward_only ? 1.0 : kTrainingOverForward);
  nlohmann::json result = {
      {"what", options.forward_only ? "eval" : "train"},
      {"shape", options.shape},
      {"rows", options.rows},
      {"bytes", options.bytes},
      {"threads", options.threads},
      {"device", device.str()},
      {"dtype", options.dtype},
      {"arithmetic", ops::arithmetic(device)},
      {"small_tables", options.small_tables},
      {"cuda_graph", options.cuda_graph},
      {"patches", patches},
      {"bytes_per_s", ids / median(times)},
      {"seconds", median(times)},
      {"seconds_min", *std::min_element(times.begin(), times.end())},
      {"seconds_max", *std::max_element(times.begin(), times.end())},
      {"model_tflop", flops / 1e12},
      {"product_tflop_per_s", product_rate / 1e12},
      {"model_flop_utilisation", flops / median(times) / product_rate},
      {"user_seconds", per_step(seconds_of(after.ru_utime) - seconds_of(before.ru_utime))},
      {"system_seconds", per_step(seconds_of(after.ru_stime) - seconds_of(before.ru_stime))},
      {"page_faults", per_step(static_cast<double>(after.ru_minflt - before.ru_minflt))},
      {"peak_mib", peak},
      {"loss", options.forward_only ? 0.0 : loss}};
  if (unwaited) result["seconds_unwaited"] = *unwaited;
  if (options.profile) {
    at::set_num_threads(1);
    run();
    for (const OperatorTime& time : profile(run))
      result["profile"].push_back({{"name", time.name}, {"calls", time.calls}, {"ms", time.seconds * 1e3}});
    at::set_num_threads(options.threads);
  }
  if (!options.products) return result;

  Products products(run);
  const auto wait = [&] {  // for what was begun on the device
    if (!device.is_cpu()) c10::impl::VirtualGuardImpl(device.type()).getStream(device).synchronize();
  };
  const auto repeat = [&] {
    products.repeat();
    wait();
  };
  repeat();  // warm
  std::vector<double> step, alone, share;
  for (int64_t i = 0; i < options.iterations; ++i) {
    alone.push_back(seconds(repeat));
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
  app.add_option("--shape", options.shape, "1b, 400m (the paper's), small or tiny")
      ->check(CLI::IsMember({"1b", "400m", "small", "tiny"}));
  app.add_option("--device", options.device, "cpu, cuda, or one of several such as cuda:1");
  app.add_option("--dtype", options.dtype,
                 "type of parameters and activations, float32 or bfloat16; with it the optimizer has "
                 "float32 masters")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  app.add_option("--text", options.text_file, "file whose bytes are the data (default: some English)");
  app.add_option("--rows", options.rows, "sequences in a batch")->check(CLI::PositiveNumber);
  app.add_option("--bytes", options.bytes, "ids of each, BOS included")->check(CLI::Range(3, 1 << 24));
  app.add_option("--iterations", options.iterations, "steps that are timed")->check(CLI::PositiveNumber);
  app.add_option("--warm", options.warm, "steps before them")->check(CLI::NonNegativeNumber);
  app.add_option("--threads", options.threads, "threads")->check(CLI::PositiveNumber);
  app.add_option("--mean-patch", options.mean_patch, "bytes a patch, on average")
      ->check(CLI::Range(1.0, 1e6));
  app.add_flag("--forward-only", options.forward_only, "no gradients: the forward pass alone");
  app.add_flag("--small-tables", options.small_tables,
               "n-gram tables with moments in bfloat16, the second one number a row: 2 bytes an element "
               "instead of 8");
  app.add_flag(
         "--cuda-graph", options.cuda_graph,
         "forward and backward as a CUDA graph (train.cuda_graph), with the filler that it takes; on a GPU")
      ->excludes("--forward-only");
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
