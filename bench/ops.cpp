// Times the operators on the realistic cases of tests/ops/*_cases.h, forward and backward, beside what bounds them.
//
//   build/release/bench/ops [--threads=2] [--benchmark_filter=window_attention]
//   build/cuda/bench/ops --device=cuda [--dtype=bfloat16]        not yet run
//
// Counters: GB/s of the bytes that have to move, GFLOP/s where there is arithmetic to speak of; and `bound`, the part of the bound
// that is reached: the time of a plain copy of as many bytes (from and to the same cache levels), or of as much arithmetic at the speed
// of a large at::mm, whichever is longer, over the operator's time. Both are timed right after the operator, as other work on the machine
// slows them alike. On one thread all times are CPU time, which other work hardly changes.
//
// On a GPU the copy and the product are large ones on the device, whatever the operator's size; inputs rotate among several sets, so that
// no cache holds them; and there are cases of the 1B model's shapes. In 16-bit types all bytes count half, which is a little less than what has
// to move where some of it is wider (ids, log-sum-exps, rope's tables).
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/cuda_clock.h"
#include "bench/timing.h"
#include "blt/base/memory.h"
#include "op_case.h"
#include "ops/cached_attention_cases.h"
#include "ops/cross_entropy_cases.h"
#include "ops/dropout_add_cases.h"
#include "ops/linear_cases.h"
#include "ops/ngram_embedding_cases.h"
#include "ops/packed_linear_cases.h"
#include "ops/rms_norm_cases.h"
#include "ops/rms_norm_linears_cases.h"
#include "ops/rope_cases.h"
#include "ops/segment_attention_cases.h"
#include "ops/segment_pool_cases.h"
#include "ops/swiglu_cases.h"
#include "ops/swiglu_linear_cases.h"
#include "ops/window_attention_cases.h"

namespace blt::bench {
namespace {

// What the command line chose.
at::ScalarType dtype = at::kFloat;
std::unique_ptr<CudaClock> cuda;  // where the device is one

at::Device device() { return cuda ? at::kCUDA : at::kCPU; }

// Of a case's bytes, which are those of 4-byte elements.
double in_dtype(double bytes) { return bytes * static_cast<double>(c10::elementSize(dtype)) / 4; }

template <class F>
double clock(const F& f) {
  return at::get_num_threads() == 1 ? cpu_seconds(f) : seconds(f);
}

// Seconds that reading half of `bytes` and writing the other half takes, in a copy by all threads.
double copy_seconds(double bytes) {
  const auto half = static_cast<int64_t>(bytes / 2);
  const at::Tensor from = at::ones({half}, at::kByte), to = at::ones({half}, at::kByte);
  constexpr int64_t kGrain = 1 << 16;
  const auto copy = [&] {
    at::parallel_for(0, half, kGrain, [&](int64_t first, int64_t last) {
      std::memcpy(to.data_ptr<uint8_t>() + first, from.const_data_ptr<uint8_t>() + first, last - first);
    });
  };
  std::vector<double> times;
  for (int i = 0; i < 12; ++i) {
    times.push_back(clock(copy));
    benchmark::ClobberMemory();
  }
  return median({times.begin() + 2, times.end()});
}

double product_flops_per_second() {
  constexpr int64_t kSize = 1536;
  const at::Tensor a = at::rand({kSize, kSize}, dtype), b = at::rand({kSize, kSize}, dtype),
                   out = at::empty({kSize, kSize}, dtype);
  at::Tensor result = out;
  std::vector<double> times;
  for (int i = 0; i < 6; ++i) times.push_back(clock([&] { at::mm_out(result, a, b); }));
  return 2.0 * kSize * kSize * kSize / median({times.begin() + 2, times.end()});
}

void report(benchmark::State& state, double took, double bytes, double flops) {
  const double copy = bytes > 0 ? copy_seconds(bytes) : 0;
  const double arithmetic = flops > 0 ? flops / product_flops_per_second() : 0;
  state.counters["GFLOP/s"] = flops / took / 1e9;
  state.counters["GB/s"] = bytes / took / 1e9;
  state.counters["bound"] = std::max(copy, arithmetic) / took;
}

// Times f() warm, as the median of its calls.
template <class F>
void time(benchmark::State& state, double bytes, double flops, const F& f) {
  for (int i = 0; i < 3; ++i) f();
  std::vector<double> times;
  for (auto _ : state) {
    times.push_back(clock(f));
    state.SetIterationTime(times.back());
  }
  report(state, median(times), bytes, flops);
}

// A case, forward and backward, and its inputs. These stay until the next case: random numbers for the largest take seconds, and
// Google Benchmark calls a benchmark several times to find out how often it has to run.
struct Timed {
  OpCase c;
  Tensors inputs;

  const Tensors& ready_inputs() {
    static Timed* last = nullptr;
    if (last != this && last != nullptr) last->inputs.clear();
    last = this;
    if (inputs.empty()) {
      Rng rng(1);
      inputs = convert(c.inputs(rng), dtype, device());
    }
    return inputs;
  }
};

double bytes_of(const Tensors& tensors) {
  double total = 0;
  for (const at::Tensor& x : tensors)
    if (x.defined()) total += static_cast<double>(x.nbytes());
  return total;
}

// The inputs, and so many copies that their next use finds none of them in a cache.
std::vector<Tensors> rotating(const Tensors& inputs) {
  constexpr double kBeyondCaches = 512e6;
  constexpr int64_t kMost = 16;
  std::vector<Tensors> sets{inputs};
  const auto count =
      std::clamp<int64_t>(std::llround(std::ceil(kBeyondCaches / (bytes_of(inputs) + 1))), 1, kMost);
  for (int64_t i = 1; i < count; ++i) {
    sets.emplace_back();
    for (const at::Tensor& x : inputs) sets.back().push_back(x.defined() ? x.clone() : x);
  }
  return sets;
}

// Times f(set) on the GPU. Results of a round stay until the next one writes its own: those must not lie in a cache either.
void time_on_cuda(benchmark::State& state, double bytes, double flops, size_t sets,
                  const std::function<Tensors(size_t)>& f) {
  std::vector<Tensors> results(sets);
  const auto call = [&](int i) { results[i % sets] = f(i % sets); };
  const int calls = static_cast<int>(std::max<size_t>(sets, 4));
  cuda->seconds(calls, call);  // warm
  std::vector<double> times;
  for (auto _ : state) {
    times.push_back(cuda->seconds(calls, call));
    state.SetIterationTime(times.back());
  }
  const double took = median(times), copy = cuda->copy_bytes_per_second(),
               product = cuda->product_flops_per_second();
  state.counters["GFLOP/s"] = flops / took / 1e9;
  state.counters["GB/s"] = bytes / took / 1e9;
  state.counters["bound"] = std::max(bytes / copy, flops / product) / took;
  state.counters["copy GB/s"] = copy / 1e9;
  state.counters["product GFLOP/s"] = product / 1e9;
}

void forward(benchmark::State& state, Timed& timed) {
  const OpCase& c = timed.c;
  const Tensors& inputs = timed.ready_inputs();
  const at::NoGradGuard no_grad;
  if (cuda) {
    const std::vector<Tensors> sets = rotating(inputs);
    time_on_cuda(state, in_dtype(c.bytes_moved), c.flops, sets.size(),
                 [&](size_t i) { return c.op(sets[i]); });
    return;
  }
  time(state, in_dtype(c.bytes_moved), c.flops, [&] { benchmark::DoNotOptimize(c.op(inputs)); });
}

// A forward pass whose gradients can be asked for again and again.
struct Graph {
  Tensors wanted, roots, seeds;

  Graph(const OpCase& c, Tensors inputs) {
    for (const size_t i : c.differentiable) {
      inputs[i] = inputs[i].detach().requires_grad_();
      wanted.push_back(inputs[i]);
    }
    for (const at::Tensor& output : c.op(inputs))
      if (output.requires_grad()) {
        roots.push_back(output);
        seeds.push_back(at::rand(output.sizes(), output.options()));
      }
  }
  Tensors gradients() const { return torch::autograd::grad(roots, wanted, seeds, /*retain_graph=*/true); }
};

void backward(benchmark::State& state, Timed& timed) {
  const OpCase& c = timed.c;
  const Tensors& inputs = timed.ready_inputs();
  if (cuda) {
    std::vector<Graph> graphs;
    for (const Tensors& set : rotating(inputs)) graphs.emplace_back(c, set);
    time_on_cuda(state, in_dtype(c.backward_bytes_moved), c.backward_flops, graphs.size(),
                 [&](size_t i) { return graphs[i].gradients(); });
    return;
  }
  const Graph graph(c, inputs);
  time(state, in_dtype(c.backward_bytes_moved), c.backward_flops,
       [&] { benchmark::DoNotOptimize(graph.gradients()); });
}

// A case that cannot run says so, and the others go on.
template <void (*run)(benchmark::State&, Timed&)>
void guarded(benchmark::State& state, const std::shared_ptr<Timed>& timed) {
  try {
    run(state, *timed);
  } catch (const c10::NotImplementedError&) {
    state.SkipWithError("no CUDA kernel of this operator");
  } catch (const c10::Error& error) {
    state.SkipWithError(error.what_without_backtrace());
  }
}

void add(const std::string& op, const std::vector<OpCase>& cases) {
  for (const OpCase& c : cases) {
    if (std::find(c.dtypes.begin(), c.dtypes.end(), dtype) == c.dtypes.end()) continue;
    const auto timed = std::make_shared<Timed>(Timed{c, {}});
    const auto add_one = [&](const char* direction,
                             void (*run)(benchmark::State&, const std::shared_ptr<Timed>&)) {
      benchmark::RegisterBenchmark((op + "/" + direction + "/" + c.name).c_str(), run, timed)
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    };
    add_one("forward", guarded<forward>);
    if (c.backward_bytes_moved + c.backward_flops > 0) add_one("backward", guarded<backward>);
  }
}

void add_all() {
  add("window_attention", window_attention_bench_cases());
  add("segment_attention", segment_attention_bench_cases());
  add("segment_pool", segment_pool_bench_cases());
  add("ngram_embedding", ngram_embedding_bench_cases());
  add("touched_rows", touched_rows_bench_cases());
  add("row_adamw", row_adamw_bench_cases());
  add("linear", linear_bench_cases());
  add("packed_linear", packed_linear_bench_cases());
  add("rms_norm", rms_norm_bench_cases());
  add("rms_norm_linears", rms_norm_linears_bench_cases());
  add("rope", rope_bench_cases());
  add("swiglu", swiglu_bench_cases());
  add("swiglu_linear", swiglu_linear_bench_cases());
  add("dropout_add", dropout_add_bench_cases());
  add("cross_entropy", cross_entropy_bench_cases());
  add("cached_attention", cached_attention_bench_cases());
}

// The 1B model's shapes (local width 1024 in 16 heads, k = 2, a patch of 4.5 bytes on average): for GPUs, a CPU would take minutes. But its
// n-gram tables have 50,000 rows here, not the model's 500,002.
void add_1b() {
  constexpr int64_t kWidth = 1024, kHeads = 16, kHead = 64, kFfn = 2816;
  for (const int64_t T : {int64_t{32768}, int64_t{131072}}) {
    const int64_t P = T * 2 / 9;
    // 32,768 bytes are among the cases above already, where an operator's cost is worth a CPU's time.
    if (T > 32768) {
      add("segment_attention", {encoder_attention_case(T, P, 2, kHeads, kHeads, kHead),
                                decoder_attention_case(T, P, 2, kHeads, kHeads, kHead)});
      add("segment_pool", {segment_pool_case(T, P, kWidth, Pooling::kMax)});
      add("rms_norm", {rms_norm_case(T, kWidth)});
      add("rope", {rope_case(T, kHeads, kHead, 8192)});
    } else {  // the 400M model's local width is 768
      add("segment_attention",
          {encoder_attention_case(T, P, 2, 12, 12, kHead), decoder_attention_case(T, P, 2, 12, 12, kHead)});
    }
    add("ngram_embedding", {ngram_embedding_case(T, 8, kWidth, {{3, 4, 5, 6, 7, 8}, 50000, 1})});
    if (T == 32768) add("swiglu", {swiglu_case(T, kFfn)});
    add("dropout_add", {dropout_add_case(T, kWidth, 0.1, true)});
    add("cross_entropy", {cross_entropy_case(T, kVocabulary)});
    add("window_attention",
        {window_attention_case(std::vector<int64_t>(T / 8192, 8192), kHeads, kHeads, kHead, 512)});
    add("linear", {linear_case(T, kWidth, kWidth), linear_case(T, kWidth, kFfn)});
  }
  for (const int64_t rows : {1, 8, 32, 1024})
    add("packed_linear", {packed_once(packed_linear_case(rows, kWidth, kWidth)),
                          packed_once(packed_linear_case(rows, kFfn, kWidth)),
                          packed_once(packed_linear_case(rows, kWidth, kFfn))});
  // A byte in a local layer, and a patch in one of 16 latent heads of 128.
  for (const size_t sequences : {1, 32}) {
    add("cached_attention", {cached_once(std::vector<int64_t>(sequences, 8191), kHeads, kHeads, kHead, 512),
                             cached_once(std::vector<int64_t>(sequences, 2047), kHeads, kHeads, 128, 0)});
  }
  add("cached_attention",
      {cached_once({16383}, kHeads, kHeads, 128, 0), cached_once({16383}, kHeads, 4, 128, 0)});
}

}  // namespace
}  // namespace blt::bench

int main(int argc, char** argv) {
  blt::keep_freed_memory();
  constexpr std::string_view kThreads = "--threads=", kDevice = "--device=", kDtype = "--dtype=";
  std::vector<char*> arguments;
  bool on_cuda = false, only_list = false;
  for (int i = 0; i < argc; ++i) {
    const std::string_view argument = argv[i];
    only_list |= argument.starts_with("--benchmark_list_tests");
    if (argument.starts_with(kThreads)) {
      at::set_num_threads(std::atoi(argv[i] + kThreads.size()));
    } else if (argument == "--device=cpu" || argument == "--device=cuda") {
      on_cuda = argument == "--device=cuda";
    } else if (argument == "--dtype=float32" || argument == "--dtype=bfloat16" ||
               argument == "--dtype=float16") {
      blt::bench::dtype = argument.ends_with("bfloat16")  ? at::kBFloat16
                          : argument.ends_with("float16") ? at::kHalf
                                                          : at::kFloat;
    } else if (argument.starts_with(kDevice) || argument.starts_with(kDtype)) {
      std::cerr << "ops: " << argument
                << " is none of --device=cpu, --device=cuda, --dtype=float32, --dtype=bfloat16 and "
                   "--dtype=float16\n";
      return 2;
    } else {
      arguments.push_back(argv[i]);
    }
  }
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
  try {
    if (on_cuda && !only_list) blt::bench::cuda = std::make_unique<blt::bench::CudaClock>(blt::bench::dtype);
  } catch (const c10::Error& error) {
    std::cerr << "ops: --device=cuda: " << error.what_without_backtrace() << "\n";
    return 1;
  }
  blt::bench::add_all();
  if (on_cuda) blt::bench::add_1b();
  benchmark::AddCustomContext("threads", std::to_string(at::get_num_threads()));
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
