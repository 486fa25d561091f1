// How much of the communication of data parallel training is hidden behind the backward pass: two ranks over a link of a given speed, with
// gradients that travel during the backward pass and after it.
//
//   build/release/bench/overlap --shape small --bandwidth-gbps 10 --trace overlap.json
//
// The ranks are threads with a real transport on loopback, slowed down (DelayedGroup): a processor that copies the bytes itself would show
// no network. Prints one line of JSON; the trace, for chrome://tracing or ui.perfetto.dev, is the last step of each way.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <fstream>
#include <iostream>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bench/shapes.h"
#include "bench/timing.h"
#include "blt/base/memory.h"
#include "blt/model/blt.h"
#include "blt/train/group_layer.h"
#include "blt/train/rendezvous.h"
#include "blt/train/trainer.h"

namespace blt::bench {
namespace {

using Clock = WatchedGroup::Clock;

struct Options {
  std::string shape = "small", trace;
  int64_t ranks = 2, rows = 4, bytes = 1024, iterations = 3, warm = 1;
  double bandwidth_gbps = 10, latency_us = 50, bucket_mib = 4;
};

// One rank's rows of the batch, for ever.
class SameBatch : public Stage<Batch> {
 public:
  explicit SameBatch(Batch batch) : batch_(std::move(batch)) {}
  std::optional<Batch> next() override { return batch_; }
  void save(StateWriter&) const override {}
  void load(const StateReader&) override {}

 private:
  Batch batch_;
};

// Something that took time, on one of a rank's lines in the trace.
struct Span {
  enum Line { kRank, kLink };
  std::string name;
  Line line = kRank;
  Clock::time_point from, until;
  int64_t bytes = 0;
};

struct Steps {
  std::vector<double> seconds, waits;
  std::vector<Span> last;  // of the last step
  Clock::time_point last_began;
  int64_t bytes = 0;  // a step's, over the link
};

uint16_t free_port() {
  const int descriptor = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  TORCH_CHECK(bind(descriptor, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                  getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) == 0,
              "no free port");
  close(descriptor);
  return ntohs(address.sin_port);
}

Steps train(const Options& options, bool overlap, int64_t rank, uint16_t port) {
  at::set_num_threads(1);
  Steps steps;
  std::vector<Span> spans;
  const auto network = join({.rank = rank,
                             .ranks = options.ranks,
                             .local_rank = rank,
                             .local_ranks = options.ranks,
                             .port = port,
                             .keeps_store = rank == 0},
                            {.start_s = 60, .transfer_s = 600});
  const auto link = std::make_shared<DelayedGroup>(
      network,
      LinkSpeed{.latency_s = options.latency_us * 1e-6, .bytes_per_s = options.bandwidth_gbps * 1e9 / 8},
      [&](const DelayedGroup::Carried& carried) {
        spans.push_back({carried.what, Span::kLink, carried.from, carried.until, carried.bytes});
      });
  Clock::time_point backward_began;
  const auto watched = std::make_shared<WatchedGroup>(link, [&](const WatchedGroup::Seen& seen) {
    if (backward_began != Clock::time_point()) {
      spans.push_back({"backward", Span::kRank, backward_began, seen.wait_begun, 0});
      backward_began = {};
    }
    spans.push_back({"wait: " + seen.what, Span::kRank, seen.wait_begun, seen.wait_ended, 0});
  });

  Blt model(shape(options.shape));
  TrainConfig config;
  config.steps = 1000000;
  TrainerParts parts;
  parts.model = trainable(model);
  parts.model.forward = [&spans, forward = parts.model.forward](const Batch& batch) {
    const Clock::time_point began = Clock::now();
    const at::Tensor logits = forward(batch);
    spans.push_back({"forward", Span::kRank, began, Clock::now(), 0});
    return logits;
  };
  parts.loss = [&backward_began](const at::Tensor& logits, const Batch& batch) {
    const LossValue loss = next_id_loss(logits, batch);
    backward_began = Clock::now();
    return loss;
  };
  parts.train = std::make_unique<SameBatch>(
      batch(kText, options.rows / options.ranks, options.bytes, /*mean_patch=*/4.5));
  parts.group = watched;
  parts.parallel = {.bucket_mib = options.bucket_mib, .overlap = overlap};
  Trainer trainer(config, std::move(parts));
  for (int64_t i = 0; i < options.warm + options.iterations; ++i) {
    watched->barrier("start of the step");
    spans.clear();
    double waited = 0;
    steps.last_began = Clock::now();
    const double taken = seconds([&] { waited = trainer.train_step().transfer_wait_s; });
    if (i < options.warm) continue;
    steps.seconds.push_back(taken);
    steps.waits.push_back(waited);
  }
  spans.push_back({"step", Span::kRank, steps.last_began, Clock::now(), 0});
  for (const Span& span : spans) steps.bytes += span.bytes;
  steps.last = spans;
  watched->barrier("end");
  return steps;
}

std::vector<Steps> train_ranks(const Options& options, bool overlap) {
  const uint16_t port = free_port();
  std::vector<Steps> results(static_cast<size_t>(options.ranks));
  std::exception_ptr error;
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < options.ranks; ++rank)
    threads.emplace_back([&, rank] {
      try {
        results[static_cast<size_t>(rank)] = train(options, overlap, rank, port);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
  return results;
}

// Spans in the form of Chrome's trace events: a process for each rank and way, a thread for each line.
void add_trace(nlohmann::json& events, const std::vector<Steps>& ranks, const std::string& way,
               size_t first_process) {
  for (size_t r = 0; r < ranks.size(); ++r) {
    const size_t process = first_process + r;
    const auto name = [&](const char* kind, int line, const std::string& text) {
      events.push_back(
          {{"ph", "M"}, {"pid", process}, {"tid", line}, {"name", kind}, {"args", {{"name", text}}}});
    };
    name("process_name", 0, "rank " + std::to_string(r) + ", " + way);
    name("thread_name", Span::kRank, "computes or waits");
    name("thread_name", Span::kLink, "its link");
    const auto us = [&](Clock::time_point time) {
      return std::chrono::duration<double, std::micro>(time - ranks[r].last_began).count();
    };
    for (const Span& span : ranks[r].last) {
      nlohmann::json event = {
          {"ph", "X"},         {"pid", process},      {"tid", static_cast<int>(span.line)},
          {"name", span.name}, {"ts", us(span.from)}, {"dur", us(span.until) - us(span.from)}};
      if (span.bytes > 0) event["args"] = {{"bytes", span.bytes}};
      events.push_back(event);
    }
  }
}

nlohmann::json summary(const std::vector<Steps>& ranks) {
  std::vector<double> waits, taken;
  for (const Steps& steps : ranks) {
    waits.push_back(median(steps.waits));
    taken.push_back(median(steps.seconds));
  }
  double mean = 0;
  for (const double wait : waits) mean += wait / static_cast<double>(waits.size());
  return {{"step_s", *std::max_element(taken.begin(), taken.end())},
          {"exposed_s", mean},
          {"exposed_s_by_rank", waits},
          {"link_bytes", ranks[0].bytes}};
}

nlohmann::json measure(const Options& options) {
  nlohmann::json events = nlohmann::json::array();
  nlohmann::json result = {
      {"shape", options.shape},          {"ranks", options.ranks},         {"rows", options.rows},
      {"bytes", options.bytes},          {"gbps", options.bandwidth_gbps}, {"latency_us", options.latency_us},
      {"bucket_mib", options.bucket_mib}};
  size_t process = 0;
  for (const bool overlap : {false, true}) {
    const std::vector<Steps> ranks = train_ranks(options, overlap);
    const std::string way = overlap ? "overlap" : "no_overlap";
    result[way] = summary(ranks);
    add_trace(events, ranks, way, process);
    process += ranks.size();
  }
  result["exposed_ratio"] =
      result["overlap"]["exposed_s"].get<double>() / result["no_overlap"]["exposed_s"].get<double>();
  if (!options.trace.empty()) {
    std::ofstream file(options.trace);
    file << nlohmann::json{{"traceEvents", events}, {"displayTimeUnit", "ms"}} << "\n";
    TORCH_CHECK(file.flush(), options.trace, " cannot be written");
  }
  return result;
}

}  // namespace
}  // namespace blt::bench

int main(int argc, char** argv) {
  blt::bench::Options options;
  CLI::App app("Measures how much communication the backward pass hides.");
  app.add_option("--shape", options.shape, "small or tiny")->check(CLI::IsMember({"small", "tiny"}));
  app.add_option("--ranks", options.ranks, "ranks, a thread each")->check(CLI::Range(2, 64));
  app.add_option("--rows", options.rows, "sequences in a step of all ranks")->check(CLI::PositiveNumber);
  app.add_option("--bytes", options.bytes, "ids of each, BOS included")->check(CLI::Range(3, 1 << 24));
  app.add_option("--iterations", options.iterations, "steps that are timed")->check(CLI::PositiveNumber);
  app.add_option("--warm", options.warm, "steps before them")->check(CLI::NonNegativeNumber);
  app.add_option("--bandwidth-gbps", options.bandwidth_gbps, "of a rank's link, 10^9 bits a second")
      ->check(CLI::PositiveNumber);
  app.add_option("--latency-us", options.latency_us, "of a transfer")->check(CLI::NonNegativeNumber);
  app.add_option("--bucket-mib", options.bucket_mib, "parallel.bucket_mib")->check(CLI::PositiveNumber);
  app.add_option("--trace", options.trace, "file for the trace");
  CLI11_PARSE(app, argc, argv);
  blt::keep_freed_memory();
  try {
    std::cout << blt::bench::measure(options).dump() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "overlap: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
