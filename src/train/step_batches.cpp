#include "train/step_batches.h"

#include <fmt/format.h>

#include "model/trace_range.h"

namespace blt {

StepBatches::Read StepBatches::read(int64_t count, int64_t step) {
  const TraceRange range("data");
  Read read;
  input_->save(read.from);
  try {
    while (static_cast<int64_t>(read.batches.size()) < count) {
      std::optional<Batch> batch = input_->next();
      if (!batch)
        throw Error(
            fmt::format("step {}: the training data has ended; train for fewer steps or repeat it", step));
      read.batches.push_back(std::move(*batch));
    }
  } catch (const Error& e) {
    read.batches.clear();
    read.failure = e;
  }
  return read;
}

void StepBatches::read_ahead(int64_t count, int64_t step) {
  if (!ahead_) ahead_ = read(count, step);
}

std::vector<Batch> StepBatches::take(int64_t count, int64_t step) {
  read_ahead(count, step);
  if (ahead_->failure) throw *ahead_->failure;  // and again, for it stays so
  std::vector<Batch> batches = std::move(ahead_->batches);
  ahead_.reset();
  return batches;
}

void StepBatches::save(StateWriter& out) const {
  if (ahead_)
    out.assign(ahead_->from);
  else
    input_->save(out);
}

void StepBatches::load(const StateReader& in) {
  ahead_.reset();
  input_->load(in);
}

}  // namespace blt
