#include "blt/data/patch_stage.h"

#include <c10/util/Exception.h>

#include <fmt/format.h>

#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "blt/base/error.h"
#include "data/pieces.h"
#include "ops/cpu/one_thread.h"

namespace blt {
namespace {

// The work on a block. Thread-safe.
class Patching {
 public:
  Patching(PatchSchedule schedule, std::shared_ptr<EntropySource> entropies, PatchStage::Options options,
           std::shared_ptr<LoaderMetrics> metrics)
      : schedule_(std::move(schedule)),
        entropies_(std::move(entropies)),
        options_(std::move(options)),
        metrics_(std::move(metrics)) {
    for (const PatcherFrom& entry : schedule_)
      TORCH_CHECK(!entry.patcher->needs_entropies() || entropies_,
                  "PatchStage: the patcher needs entropies, and there is no source of them");
    TORCH_CHECK(schedule_.empty() || schedule_.front().text_bytes == 0,
                "PatchStage: there is no patcher for the first text");
  }

  std::vector<PatchedSequence> operator()(const std::vector<Sequence>& block) const {
    if (options_.threads > 0) use_this_thread_alone();
    int64_t bytes = 0;
    for (const Sequence& sequence : block) bytes += static_cast<int64_t>(sequence.bytes.size());
    // The bytes count for the rules once, when they are cut.
    std::vector<std::vector<int32_t>> ids = measure(&LoaderMetrics::patch, 0, [&] { return ids_of(block); });
    std::vector<PatchedSequence> result;
    if (schedule_.empty()) {
      for (std::vector<int32_t>& of_sequence : ids) result.emplace_back().ids = std::move(of_sequence);
    } else {
      std::vector<std::vector<float>> entropies(block.size());
      if (needs_entropies(block))
        entropies = measure(&LoaderMetrics::entropy, bytes, [&] { return entropies_of(block, ids); });
      result = measure(&LoaderMetrics::patch, bytes, [&] { return cut(block, std::move(ids), entropies); });
    }
    for (size_t i = 0; i < block.size(); ++i) {
      result[i].place = block[i].place;
      if (block[i].patches_done > 0) result[i] = tail(result[i], block[i].patches_done);
    }
    return result;
  }

 private:
  // The threads of the loader are the parallelism here; teams of each would stand in each other's way.
  static void use_this_thread_alone() {
    static thread_local bool done = false;
    if (std::exchange(done, true)) return;
    ops::use_one_thread();
  }
  template <class F>
  std::invoke_result_t<F> measure(LoaderMetrics::Work LoaderMetrics::*work, int64_t bytes, F f) const {
    return LoaderMetrics::measure(metrics_.get(), work, bytes, std::move(f));
  }
  std::vector<std::vector<int32_t>> ids_of(const std::vector<Sequence>& block) const {
    std::vector<std::vector<int32_t>> ids;
    for (const Sequence& sequence : block) ids.push_back(sequence.ids(options_.eos));
    return ids;
  }
  std::vector<std::vector<float>> entropies_of(const std::vector<Sequence>& block,
                                               const std::vector<std::vector<int32_t>>& ids) const {
    try {
      return entropies_->entropies(ids);
    } catch (const Error& problem) {
      if (!options_.name_text) throw;
      throw Error(fmt::format("{}: {}", names_of(block), problem.what()));
    } catch (c10::Error& problem) {  // also that a device has no memory left, or is lost
      if (options_.name_text) problem.add_context(names_of(block));
      throw;
    }
  }
  std::string names_of(const std::vector<Sequence>& block) const {
    const std::string first = options_.name_text(block.front().place),
                      last = options_.name_text(block.back().place);
    if (first == last) return fmt::format("entropies of {}", first);
    return fmt::format("entropies of {} sequences, the first {}, the last {}", block.size(), first, last);
  }
  std::vector<PatchedSequence> cut(const std::vector<Sequence>& block, std::vector<std::vector<int32_t>> ids,
                                   const std::vector<std::vector<float>>& entropies) const {
    std::vector<PatchedSequence> result(block.size());
    for (size_t i = 0; i < block.size(); ++i) {
      result[i].starts = patcher(block[i]).starts(ids[i], entropies[i]);
      result[i].ids = std::move(ids[i]);
      if (!metrics_) continue;
      metrics_->patches += num_pieces(result[i]) - 1;
      metrics_->patched_bytes += static_cast<int64_t>(block[i].bytes.size());
    }
    return result;
  }
  const Patcher& patcher(const Sequence& sequence) const {
    size_t i = schedule_.size() - 1;
    while (schedule_[i].text_bytes > sequence.text_before) --i;
    return *schedule_[i].patcher;
  }
  bool needs_entropies(const std::vector<Sequence>& block) const {
    for (const Sequence& sequence : block)
      if (patcher(sequence).needs_entropies()) return true;
    return false;
  }

  PatchSchedule schedule_;
  std::shared_ptr<EntropySource> entropies_;
  PatchStage::Options options_;
  std::shared_ptr<LoaderMetrics> metrics_;
};

}  // namespace

PatchStage::PatchStage(std::unique_ptr<Stage<Sequence>> input, PatchSchedule schedule,
                       std::shared_ptr<EntropySource> entropies, Options options,
                       std::shared_ptr<LoaderMetrics> metrics)
    : BlockStage(
          std::move(input),
          {.limit = options.block_bytes, .threads = options.threads, .ahead = options.blocks_ahead},
          [](const Sequence& sequence) { return static_cast<int64_t>(sequence.bytes.size()); },
          [patching =
               std::make_shared<const Patching>(std::move(schedule), std::move(entropies), options, metrics)](
              const std::vector<Sequence>& block, int64_t) { return (*patching)(block); }),
      metrics_(std::move(metrics)) {}

std::optional<PatchedSequence> PatchStage::next() {
  if (metrics_) metrics_->blocks_ready.look(ready());
  return BlockStage::next();
}

}  // namespace blt
