// How much of the communication between ranks is hidden behind what they compute: two ranks over a link of a given speed, with every way of
// dividing parameters, gradients, state and n-gram tables, each with `parallel.overlap` off and on by turns.
//
//   build/release/bench/overlap --shape small --bandwidth-gbps 10 --text book.txt
//   build/release/bench/overlap --sharding zero3 --tables sharded --trace overlap.json
//
// The ranks are threads with a real transport on loopback, slowed down (DelayedGroup): a processor that copies the bytes itself would show
// no network. Prints a table; the trace, for chrome://tracing or ui.perfetto.dev, is the last step of each way.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bench/shapes.h"
#include "bench/timing.h"
#include "blt/base/error.h"
#include "blt/base/memory.h"
#include "blt/model/blt.h"
#include "blt/train/group_layer.h"
#include "blt/train/rendezvous.h"
#include "blt/train/trainer.h"

namespace blt::bench {
namespace {

using Clock = WatchedGroup::Clock;

struct Options {
  std::string shape = "small", text, trace;
  std::vector<std::string> shardings = {"none", "zero1", "zero2", "zero3"};
  std::vector<std::string> tables = {"replicated", "sharded"};
  int64_t ranks = 2, rows = 4, bytes = 1024, pairs = 5, steps = 2;
  double bandwidth_gbps = 10, latency_us = 50, bucket_mib = 25;
};

// What is divided among the ranks.
struct Division {
  std::string sharding, tables;
};

template <class Enum>
Enum named(const std::string& name) {
  for (const auto& [value, known] : EnumNames<Enum>::kValues)
    if (known == name) return value;
  throw Error(name + " is not known");
}

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

// A step, as a rank saw it.
struct Step {
  double seconds = 0, exposed_s = 0;  // exposed: waited for transfers, and for the other ranks in them
  double for_link_s = 0;              // of that: while the link was at it
  double link_s = 0;                  // the link was at it, waited for or not
  int64_t bytes = 0;                  // over the link
  std::vector<Span> spans = {};
  Clock::time_point began;
};
// Pairs of blocks of steps, by turns without overlap and with it.
struct Steps {
  std::vector<std::vector<Step>> without, with;  // of each pair
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

// A rank's training with one way of overlap.
class Training {
 public:
  Training(const Options& options, const Division& division, bool overlap, const std::string& text,
           const std::shared_ptr<Group>& network)
      : model_(shape(options.shape)) {
    const auto link = std::make_shared<DelayedGroup>(
        network,
        LinkSpeed{.latency_s = options.latency_us * 1e-6, .bytes_per_s = options.bandwidth_gbps * 1e9 / 8},
        [this](const DelayedGroup::Carried& carried) { see(carried); });
    const auto watched =
        std::make_shared<WatchedGroup>(link, [this](const WatchedGroup::Seen& seen) { see(seen); });
    TrainConfig config;
    config.steps = 1000000;
    TrainerParts parts;
    parts.model = trainable(model_);
    parts.model.forward = [this, forward = parts.model.forward](const Batch& batch) {
      computing_ = "forward";
      computing_since_ = Clock::now();
      return forward(batch);
    };
    parts.loss = [this](const at::Tensor& logits, const Batch& batch) {
      const LossValue loss = next_id_loss(logits, batch);
      end_computing(Clock::now());
      computing_ = "backward, update";
      computing_since_ = Clock::now();
      return loss;
    };
    parts.train = std::make_unique<SameBatch>(
        batch(text, options.rows / options.ranks, options.bytes, /*mean_patch=*/4.5));
    parts.group = watched;
    parts.parallel = {.sharding = named<Sharding>(division.sharding),
                      .tables = named<TablePlacement>(division.tables),
                      .bucket_mib = options.bucket_mib,
                      .overlap = overlap};
    trainer_ = std::make_unique<Trainer>(config, std::move(parts));
  }

  // One after the other, as in a training: what a step leaves on its way is part of the next one, and what was before is not.
  std::vector<Step> block(int64_t steps) {
    std::vector<Step> result;
    for (int64_t i = 0; i < 1 + steps; ++i) {
      step_ = Step();
      step_.began = Clock::now();
      computing_.reset();
      step_.seconds = seconds([&] { step_.exposed_s = trainer_->train_step().transfer_waits.seconds(); });
      end_computing(Clock::now());
      step_.spans.push_back({"step", Span::kRank, step_.began, Clock::now(), 0});
      if (i > 0) result.push_back(step_);
    }
    return result;
  }

 private:
  void see(const DelayedGroup::Carried& carried) {
    step_.spans.push_back({carried.what, Span::kLink, carried.from, carried.until, carried.bytes});
    step_.bytes += carried.bytes;
    step_.link_s += std::chrono::duration<double>(carried.until - carried.from).count();
    due_[carried.what].push_back(carried.until);
  }

  void see(const WatchedGroup::Seen& seen) {
    end_computing(seen.wait_begun);
    step_.spans.push_back({"wait: " + seen.what, Span::kRank, seen.wait_begun, seen.wait_ended, 0});
    if (computing_) computing_since_ = seen.wait_ended;
    // Transfers of one name are waited for in the order in which they began.
    std::deque<Clock::time_point>& due = due_[seen.what];
    const Clock::time_point until = std::clamp(due.front(), seen.wait_begun, seen.wait_ended);
    due.pop_front();
    step_.for_link_s += std::chrono::duration<double>(until - seen.wait_begun).count();
  }

  void end_computing(Clock::time_point at) {
    if (computing_) step_.spans.push_back({*computing_, Span::kRank, computing_since_, at, 0});
  }

  Blt model_;
  std::unique_ptr<Trainer> trainer_;
  Step step_;
  std::optional<std::string> computing_;
  Clock::time_point computing_since_;
  std::map<std::string, std::deque<Clock::time_point>> due_;
};

Steps train(const Options& options, const Division& division, const std::string& text, int64_t rank,
            uint16_t port) {
  at::set_num_threads(1);
  const std::shared_ptr<Group> network = join(
      {.rank = rank, .ranks = options.ranks, .local_rank = rank, .local_ranks = options.ranks, .port = port},
      {.start_s = 60, .transfer_s = 600});
  Training without(options, division, /*overlap=*/false, text, network);
  Training with(options, division, /*overlap=*/true, text, network);
  Steps steps;
  for (int64_t pair = 0; pair < options.pairs; ++pair) {
    steps.without.push_back(without.block(options.steps));
    network->barrier("end of a block");
    steps.with.push_back(with.block(options.steps));
    network->barrier("end of a pair");
  }
  return steps;
}

// Each rank has rows of its own.
std::string text_of(const Options& options, int64_t rank) {
  if (options.text.empty()) return kText;
  std::ifstream file(options.text, std::ios::binary);
  const int64_t bytes = options.rows / options.ranks * options.bytes;
  std::string text(static_cast<size_t>(bytes), '\0');
  if (!file.seekg(rank * bytes) || !file.read(text.data(), bytes))
    throw Error(options.text + " cannot be read, or is shorter than the rows of all ranks");
  return text;
}

std::vector<Steps> train_ranks(const Options& options, const Division& division) {
  const uint16_t port = free_port();
  std::vector<Steps> results(static_cast<size_t>(options.ranks));
  std::exception_ptr error;
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < options.ranks; ++rank)
    threads.emplace_back([&, rank] {
      try {
        results[static_cast<size_t>(rank)] = train(options, division, text_of(options, rank), rank, port);
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
void add_trace(nlohmann::json& events, const Step& step, const std::string& name, size_t process) {
  const auto describe = [&](const char* kind, int line, const std::string& text) {
    events.push_back(
        {{"ph", "M"}, {"pid", process}, {"tid", line}, {"name", kind}, {"args", {{"name", text}}}});
  };
  describe("process_name", 0, name);
  describe("thread_name", Span::kRank, "computes or waits");
  describe("thread_name", Span::kLink, "its link");
  const auto us = [&](Clock::time_point time) {
    return std::chrono::duration<double, std::micro>(time - step.began).count();
  };
  for (const Span& span : step.spans) {
    nlohmann::json event = {
        {"ph", "X"},         {"pid", process},      {"tid", static_cast<int>(span.line)},
        {"name", span.name}, {"ts", us(span.from)}, {"dur", us(span.until) - us(span.from)}};
    if (span.bytes > 0) event["args"] = {{"bytes", span.bytes}};
    events.push_back(event);
  }
}

// Of each pair: the median of its steps, each the mean of the ranks.
std::vector<double> of_pairs(const std::vector<Steps>& ranks, bool overlap, double Step::*number) {
  const auto blocks = [&](const Steps& steps) -> auto& { return overlap ? steps.with : steps.without; };
  std::vector<double> result;
  for (size_t pair = 0; pair < blocks(ranks[0]).size(); ++pair) {
    std::vector<double> means;
    for (size_t i = 0; i < blocks(ranks[0])[pair].size(); ++i) {
      double sum = 0;
      for (const Steps& steps : ranks) sum += blocks(steps)[pair][i].*number;
      means.push_back(sum / static_cast<double>(ranks.size()));
    }
    result.push_back(median(means));
  }
  return result;
}

// The median, and the least and the most: "97 (90 to 105)".
std::string spread(const std::vector<double>& values, double scale, const char* format) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  const auto text = [&](double value) {
    char buffer[32];
    std::snprintf(buffer, sizeof(buffer), format, value * scale);
    return std::string(buffer);
  };
  return text(median(values)) + " (" + text(*least) + " to " + text(*most) + ")";
}

void print_row(const Division& division, const std::vector<Steps>& ranks) {
  const auto both = [&](double Step::*number, double scale, const char* format) {
    return spread(of_pairs(ranks, false, number), scale, format) + " | " +
           spread(of_pairs(ranks, true, number), scale, format);
  };
  const auto ratios = [&](double Step::*number) {
    std::vector<double> off = of_pairs(ranks, false, number), on = of_pairs(ranks, true, number);
    for (size_t i = 0; i < on.size(); ++i) on[i] /= off[i];
    return spread(on, 1, "%.2f");
  };
  const Step& last = ranks[0].with.back().back();
  std::cout << "| " << division.sharding << " | " << division.tables << " | " << last.bytes / 1000000 << " | "
            << std::lround(1e3 * last.link_s) << " | " << both(&Step::seconds, 1, "%.2f") << " | "
            << both(&Step::exposed_s, 1e3, "%.0f") << " | " << ratios(&Step::exposed_s) << " | "
            << both(&Step::for_link_s, 1e3, "%.0f") << " | " << ratios(&Step::for_link_s) << " |"
            << std::endl;
}

void measure(const Options& options) {
  std::cout << "`" << options.shape << "`, " << options.ranks << " ranks, " << options.rows / options.ranks
            << " x " << options.bytes << " bytes each, " << options.bandwidth_gbps << " Gbit/s, "
            << options.latency_us << " us, buckets of " << options.bucket_mib << " MiB, " << options.pairs
            << " pairs of " << options.steps
            << " steps: median (least to most) of the pairs. Exposed: a rank waited for transfers and for "
               "the other ranks in them; for the link: while its link was at it.\n\n"
               "| sharding | tables | MB a step | link busy, ms | step without overlap, s | with | exposed "
               "without, ms | with | ratio | for the link without, ms | with | ratio |\n"
               "|---|---|---|---|---|---|---|---|---|---|---|---|"
            << std::endl;
  nlohmann::json events = nlohmann::json::array();
  size_t process = 0;
  for (const std::string& sharding : options.shardings)
    for (const std::string& tables : options.tables) {
      const Division division{sharding, tables};
      const std::vector<Steps> ranks = train_ranks(options, division);
      print_row(division, ranks);
      for (const bool overlap : {false, true})
        for (size_t r = 0; r < ranks.size(); ++r)
          add_trace(events, (overlap ? ranks[r].with : ranks[r].without).back().back(),
                    "rank " + std::to_string(r) + ", " + sharding + ", tables " + tables +
                        (overlap ? ", overlap" : ", no overlap"),
                    process++);
    }
  if (options.trace.empty()) return;
  std::ofstream file(options.trace);
  file << nlohmann::json{{"traceEvents", events}, {"displayTimeUnit", "ms"}} << "\n";
  TORCH_CHECK(file.flush(), options.trace, " cannot be written");
}

}  // namespace
}  // namespace blt::bench

int main(int argc, char** argv) {
  blt::bench::Options options;
  CLI::App app("Measures how much communication between ranks is hidden behind what they compute.");
  app.add_option("--shape", options.shape, "small or tiny")->check(CLI::IsMember({"small", "tiny"}));
  app.add_option("--sharding", options.shardings, "parallel.sharding, one or more; all by default")
      ->check(CLI::IsMember({"none", "zero1", "zero2", "zero3"}));
  app.add_option("--tables", options.tables, "parallel.tables, one or both; both by default")
      ->check(CLI::IsMember({"replicated", "sharded"}));
  app.add_option("--text", options.text, "file of the text; a paragraph over and over by default")
      ->check(CLI::ExistingFile);
  app.add_option("--ranks", options.ranks, "ranks, a thread each")->check(CLI::Range(2, 64));
  app.add_option("--rows", options.rows, "sequences in a step of all ranks")->check(CLI::PositiveNumber);
  app.add_option("--bytes", options.bytes, "ids of each, BOS included")->check(CLI::Range(3, 1 << 24));
  app.add_option("--pairs", options.pairs, "turns without and with overlap")->check(CLI::PositiveNumber);
  app.add_option("--steps", options.steps, "steps of a turn, after one that is not timed")
      ->check(CLI::PositiveNumber);
  app.add_option("--bandwidth-gbps", options.bandwidth_gbps, "of a rank's link, 10^9 bits a second")
      ->check(CLI::PositiveNumber);
  app.add_option("--latency-us", options.latency_us, "of a transfer")->check(CLI::NonNegativeNumber);
  app.add_option("--bucket-mib", options.bucket_mib, "parallel.bucket_mib")->check(CLI::PositiveNumber);
  app.add_option("--trace", options.trace, "file for the trace");
  CLI11_PARSE(app, argc, argv);
  blt::keep_freed_memory();
  try {
    blt::bench::measure(options);
  } catch (const std::exception& error) {
    std::cerr << "overlap: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
