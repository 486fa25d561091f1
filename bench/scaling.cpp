// What a byte costs as documents get longer: time and memory of the operators, forward and backward, and of a whole model's, from 1,024 to
// 65,536 bytes of one document.
//
//   build/release/bench/scaling [--most 65536] [--json]
//
// Memory is the growth of the process's peak (VmHWM) while one call runs.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/shapes.h"
#include "bench/timing.h"
#include "blt/base/memory.h"
#include "blt/model/blt.h"
#include "blt/ops/ngram_embedding.h"
#include "blt/ops/segment_attention.h"
#include "blt/ops/segment_pool.h"
#include "blt/ops/window_attention.h"
#include "blt/train/gradients.h"
#include "blt/train/loss.h"

namespace blt::bench {
namespace {

constexpr int64_t kHeads = 4, kWidth = 64, kChannels = kHeads * kWidth, kSlots = 2, kWindow = 512;

// One forward and backward pass over `bytes` bytes; what is made beforehand is not part of it.
using Pass = std::function<void()>;
struct Subject {
  std::string name;
  std::function<Pass(int64_t bytes)> prepare;
};

at::Tensor leaf(at::IntArrayRef sizes) { return at::rand(sizes).requires_grad_(); }

// Backward with a gradient of ones, leaving none behind.
void differentiate(const at::Tensor& out, const std::vector<at::Tensor>& leaves) {
  out.sum().backward();
  for (at::Tensor x : leaves) x.mutable_grad() = at::Tensor();
}

Segments patches_of(int64_t bytes) { return batch(kText, 1, bytes, 4.5).patches; }

Pass attention(const Segments& queries, const Segments& keys) {
  const std::vector<at::Tensor> in = {leaf({queries.total, kHeads, kWidth}),
                                      leaf({keys.total, kHeads, kWidth}), leaf({keys.total, kHeads, kWidth})};
  return [=] { differentiate(ops::segment_attention(in[0], in[1], in[2], queries, keys, 0.125), in); };
}

std::vector<Subject> subjects() {
  std::vector<Subject> list;
  // What memory itself costs when 1,024 bytes' worth fits the caches and 65,536 bytes' worth does not.
  list.push_back({"twice x, for comparison", [](int64_t bytes) -> Pass {
                    const at::Tensor x = leaf({bytes, kChannels});
                    return [=] { differentiate(x * 2, {x}); };
                  }});
  list.push_back({"window_attention", [](int64_t bytes) -> Pass {
                    std::vector<at::Tensor> in;
                    for (int i = 0; i < 3; ++i) in.push_back(leaf({bytes, kHeads, kWidth}));
                    const Segments document = Segments::from_lengths({bytes});
                    return [=] {
                      differentiate(ops::window_attention(in[0], in[1], in[2], document, kWindow, 0.125), in);
                    };
                  }});
  list.push_back({"segment_attention (encoder)", [](int64_t bytes) {
                    const Segments patches = patches_of(bytes);
                    return attention(Segments::uniform(patches.count, kSlots, at::kCPU), patches);
                  }});
  list.push_back({"segment_attention (decoder)", [](int64_t bytes) {
                    const Segments patches = patches_of(bytes);
                    return attention(patches, Segments::uniform(patches.count, kSlots, at::kCPU));
                  }});
  list.push_back({"segment_pool", [](int64_t bytes) -> Pass {
                    const at::Tensor x = leaf({bytes, kChannels});
                    const Segments patches = patches_of(bytes);
                    return [=] { differentiate(ops::segment_pool(x, patches, Pooling::kMax), {x}); };
                  }});
  list.push_back({"ngram_embedding", [](int64_t bytes) -> Pass {
                    const NgramHash hash{.sizes = {3, 4, 5, 6, 7, 8}, .rows = 50000, .functions = 1};
                    const at::Tensor byte_table = leaf({kVocabulary, kChannels}),
                                     table = leaf({hash.num_tables() * hash.rows, kChannels});
                    const at::Tensor ids = at::randint(kByteOffset, kVocabulary, {bytes}, at::kInt);
                    const Segments document = Segments::from_lengths({bytes});
                    return [=] {
                      std::vector<RowGradient> rows;
                      differentiate(ops::ngram_embedding(ids, document, byte_table, table, hash, &rows),
                                    {byte_table});
                    };
                  }});
  list.push_back({"Blt tiny", [](int64_t bytes) -> Pass {
                    Blt model(shape("tiny"));
                    return [model, data = batch(kText, 1, bytes, 4.5)]() mutable {
                      next_id_loss(model->forward(data), data).sum.backward();
                      take_gradients(*model);
                    };
                  }});
  return list;
}

// A number of /proc/self/status, in bytes; 0 where there is none.
double status(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key + ":")) return std::stod(line.substr(key.size() + 1)) * 1024;
  return 0;
}

double peak_growth(const Pass& pass) {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << 5;  // the peak starts anew
  const double before = status("VmRSS");
  pass();
  return status("VmHWM") - before;
}

nlohmann::json measure(const Subject& subject, int64_t most) {
  nlohmann::json rows = nlohmann::json::array();
  for (int64_t bytes = 1024; bytes <= most; bytes *= 2) {
    const Pass pass = subject.prepare(bytes);
    pass();  // warm
    const double memory = peak_growth(pass), size = static_cast<double>(bytes);
    std::vector<double> times;
    double spent = 0;
    while (times.size() < 3 || (spent < 0.3 && times.size() < 100)) {
      times.push_back(seconds(pass));
      spent += times.back();
    }
    rows.push_back(
        {{"bytes", bytes}, {"ns_per_byte", median(times) / size * 1e9}, {"memory_per_byte", memory / size}});
  }
  return rows;
}

void print(const std::string& name, const nlohmann::json& rows) {
  std::printf("%s\n%10s %12s %22s\n", name.c_str(), "bytes", "ns a byte", "peak memory a byte");
  for (const auto& row : rows)
    std::printf("%10ld %12.0f %22.0f\n", row["bytes"].get<long>(), row["ns_per_byte"].get<double>(),
                row["memory_per_byte"].get<double>());
}

}  // namespace
}  // namespace blt::bench

int main(int argc, char** argv) {
  int64_t most = 65536;
  int threads = 2;
  bool json = false;
  CLI::App app("Measures what a byte costs in longer and longer documents.");
  app.add_option("--most", most, "bytes of the longest document")->check(CLI::Range(1024, 1 << 24));
  app.add_option("--threads", threads, "threads")->check(CLI::PositiveNumber);
  app.add_flag("--json", json, "one JSON object instead of tables");
  CLI11_PARSE(app, argc, argv);
  blt::keep_freed_memory();
  at::set_num_threads(threads);
  at::manual_seed(0);
  nlohmann::json all;
  for (const auto& subject : blt::bench::subjects()) {
    all[subject.name] = blt::bench::measure(subject, most);
    if (!json) blt::bench::print(subject.name, all[subject.name]);
  }
  if (json) std::cout << all.dump() << "\n";
  return 0;
}
