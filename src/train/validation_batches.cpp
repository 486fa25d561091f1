#include "train/validation_batches.h"

#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/base/signals.h"

namespace blt {
namespace {

// The shortest text there is: a BOS, which is no target.
Batch empty_batch() { return Batch::pack({{.ids = {kBos}, .starts = {0, 1}, .targets = {kIgnore}}}); }

}  // namespace

ValidationBatches::ValidationBatches(std::function<std::unique_ptr<Stage<Batch>>()> own, Group& group,
                                     at::Device device, bool compute_together)
    : make_(std::move(own)), group_(group), device_(device), compute_together_(compute_together) {}

std::optional<Batch> ValidationBatches::next_own() {
  if (!failure_.empty()) return std::nullopt;
  try {
    if (!own_) own_ = make_();
    return own_->next();
  } catch (const Error& e) {
    failure_ = e.what();
    return std::nullopt;
  }
}

std::optional<Batch> ValidationBatches::next() {
  while (true) {
    std::optional<Batch> batch = next_own();
    const std::vector<int64_t> counts =
        sum_of_counts(group_, {batch ? 1 : 0, stop_requested() ? 1 : 0, failure_.empty() ? 0 : 1},
                      "whether validation goes on");
    was_stopped_ = counts[1] > 0;
    has_failed_ = counts[2] > 0;
    if (was_stopped_ || has_failed_ || counts[0] == 0) return std::nullopt;
    if (batch) return batch;
    if (compute_together_) return empty_batch().to(device_);
  }
}

}  // namespace blt
