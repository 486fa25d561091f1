// Times the operators on the realistic cases of tests/ops/*_cases.h, forward and backward, beside what bounds them.
//
//   build/release/bench/ops [--threads=2] [--benchmark_filter=window_attention]
//
// Counters: GB/s of the bytes that have to move, GFLOP/s where there is arithmetic to speak of; and `bound`, the part of the bound
// that is reached: the time of a plain copy of as many bytes (from and to the same cache levels), or of as much arithmetic at the speed
// of a large at::mm, whichever is longer, over the operator's time. Both are timed right after the operator, as other work on the machine
// slows them alike. On one thread all times are CPU time, which other work hardly changes.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "bench/timing.h"
#include "blt/base/memory.h"
#include "op_case.h"
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
  const at::Tensor a = at::rand({kSize, kSize}), b = at::rand({kSize, kSize}),
                   out = at::empty({kSize, kSize});
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

Tensors inputs_of(const OpCase& c) {
  Rng rng(1);
  return convert(c.inputs(rng), at::kFloat, at::kCPU);
}

void forward(benchmark::State& state, const OpCase& c) {
  const Tensors inputs = inputs_of(c);
  const at::NoGradGuard no_grad;
  time(state, c.bytes_moved, c.flops, [&] { benchmark::DoNotOptimize(c.op(inputs)); });
}

void backward(benchmark::State& state, const OpCase& c) {
  Tensors inputs = inputs_of(c), wanted;
  for (const size_t i : c.differentiable) wanted.push_back(inputs[i].requires_grad_());
  Tensors roots, seeds;
  for (const at::Tensor& output : c.op(inputs))
    if (output.requires_grad()) {
      roots.push_back(output);
      seeds.push_back(at::rand(output.sizes()));
    }
  time(state, c.backward_bytes_moved, c.backward_flops,
       [&] { benchmark::DoNotOptimize(torch::autograd::grad(roots, wanted, seeds, /*retain_graph=*/true)); });
}

void add(const std::string& op, const std::vector<OpCase>& cases) {
  for (const OpCase& c : cases) {
    const auto add_one = [&](const char* direction, void (*run)(benchmark::State&, const OpCase&)) {
      benchmark::RegisterBenchmark((op + "/" + direction + "/" + c.name).c_str(), run, c)
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    };
    add_one("forward", forward);
    if (c.backward_bytes_moved + c.backward_flops > 0) add_one("backward", backward);
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
}

}  // namespace
}  // namespace blt::bench

int main(int argc, char** argv) {
  blt::keep_freed_memory();
  constexpr std::string_view kThreads = "--threads=";
  std::vector<char*> arguments;
  for (int i = 0; i < argc; ++i) {
    if (std::string_view(argv[i]).starts_with(kThreads))
      at::set_num_threads(std::atoi(argv[i] + kThreads.size()));
    else
      arguments.push_back(argv[i]);
  }
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
  blt::bench::add_all();
  benchmark::AddCustomContext("threads", std::to_string(at::get_num_threads()));
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
