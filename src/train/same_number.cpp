#include "train/same_number.h"

#include <utility>

namespace blt {
namespace {

// The shortest text there is: a BOS, which is no target.
Batch empty_batch() { return Batch::pack({{.ids = {kBos}, .starts = {0, 1}, .targets = {kIgnore}}}); }

}  // namespace

SameNumber::SameNumber(std::unique_ptr<Stage<Batch>> own, Group& group, at::Device device)
    : own_(std::move(own)), group_(group), device_(device) {}

std::optional<Batch> SameNumber::next() {
  std::optional<Batch> batch = own_->next();
  if (sum_of_counts(group_, {batch ? 1 : 0}, "whether there is more to validate on")[0] == 0)
    return std::nullopt;
  return batch ? std::move(batch) : empty_batch().to(device_);
}

}  // namespace blt
