// What a loader does, counted by its stages and read by the log.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "blt/data/data_config.h"
#include "blt/data/stage.h"

namespace blt {

// Counters that the stages of one loader share. Thread-safe, but take().
class LoaderMetrics {
 public:
  // Text that went through a stage, and the time that threads spent on it there, not waiting for another stage.
  struct Work {
    std::atomic<int64_t> bytes{0}, nanoseconds{0};

    void add(int64_t num_bytes, std::chrono::nanoseconds time) {
      bytes += num_bytes;
      nanoseconds += time.count();
    }
  };
  // How much waits in a queue, looked at whenever the queue is asked for something.
  struct Depth {
    std::atomic<int64_t> sum{0}, looks{0};

    void look(int64_t waiting) {
      sum += waiting;
      ++looks;
    }
  };
  struct Source {
    std::string name;
    std::atomic<int64_t> documents{0};  // begun in all epochs, those before a resume too
    std::atomic<int64_t> epochs{0};     // finished
    std::atomic<int64_t> skipped{
        0};  // broken documents and files that were passed over since the process started
  };

  explicit LoaderMetrics(const std::vector<SourceConfig>& sources);

  Work read;     // files, parsing, shuffle, mix: up to the sequences of this rank
  Work entropy;  // the entropy model or the cache
  Work patch;    // rules
  Work pack;     // into tensors
  std::atomic<int64_t> cache_hits{0}, cache_misses{0};  // sequences
  std::atomic<int64_t> computed_entropies{0};           // ids that the entropy model read
  std::atomic<int64_t> patched_bytes{0}, patches{0};    // text bytes, and patches without the BOS patches
  std::atomic<int64_t> batches{0},
      unused_millionths{0};  // of batches, the sum of the shares of their budget that stayed unused
  std::atomic<int64_t> waited_nanoseconds{0};  // that the trainer waited for batches
  Depth blocks_ready, batches_ready;  // patched, and packed: what the next stage, or the trainer, finds
  std::deque<Source> sources;         // those of the config, in their order

  // Runs f(), which deals with `num_bytes` bytes, and counts it as `work`, unless nobody counts: then metrics is null.
  template <class F>
  static auto measure(LoaderMetrics* metrics, Work LoaderMetrics::*work, int64_t num_bytes, F f) {
    if (metrics == nullptr) return f();
    const auto start = std::chrono::steady_clock::now();
    auto result = f();
    (metrics->*work).add(num_bytes, std::chrono::steady_clock::now() - start);
    return result;
  }

  // Numbers with their names, as they go to metrics.jsonl (docs/formats.md). Rates, shares, times and means are of what happened since
  // the last call. Those of which nothing happened are left out. One thread may call it.
  std::vector<std::pair<std::string, double>> take();

 private:
  int64_t since_last(const std::string& name, int64_t value);
  std::vector<std::pair<std::string, int64_t>> last_;
};

// Counts what its input produces, and the time of that, as `work`.
template <class T>
class Measured : public Stage<T> {
 public:
  // weight: bytes of text in an item.
  Measured(std::unique_ptr<Stage<T>> input, std::shared_ptr<LoaderMetrics> metrics,
           LoaderMetrics::Work LoaderMetrics::*work, int64_t (*weight)(const T&))
      : input_(std::move(input)), metrics_(std::move(metrics)), work_(work), weight_(weight) {}

  std::optional<T> next() override {
    const auto start = std::chrono::steady_clock::now();
    std::optional<T> item = input_->next();
    ((*metrics_).*work_).add(item ? weight_(*item) : 0, std::chrono::steady_clock::now() - start);
    return item;
  }
  void save(StateWriter& out) const override { input_->save(out); }
  void load(const StateReader& in) override { input_->load(in); }

 private:
  std::unique_ptr<Stage<T>> input_;
  std::shared_ptr<LoaderMetrics> metrics_;
  LoaderMetrics::Work LoaderMetrics::*work_;
  int64_t (*weight_)(const T&);
};

}  // namespace blt
