#include "blt/data/pack.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "blt/base/error.h"

namespace blt {
namespace {

int64_t text_bytes(const PatchedSequence& sequence) {
  return std::count_if(sequence.ids.begin(), sequence.ids.end(),
                       [](int32_t id) { return id >= kByteOffset; });
}

int64_t num_patches(const PatchedSequence& sequence) {
  const bool next_starts = sequence.starts.back() == static_cast<int64_t>(sequence.ids.size());
  return static_cast<int64_t>(sequence.starts.size()) - (next_starts ? 1 : 0);
}

// The first `patches` patches; the id that comes next, beyond the cut, starts one.
PatchedSequence head(const PatchedSequence& sequence, int64_t patches) {
  const int64_t end = sequence.starts[patches];
  PatchedSequence result;
  result.ids.assign(sequence.ids.begin(), sequence.ids.begin() + end);
  result.starts.assign(sequence.starts.begin(), sequence.starts.begin() + patches + 1);
  if (!sequence.targets.empty()) {
    result.targets.assign(sequence.targets.begin(), sequence.targets.begin() + end);
    result.targets.back() = kIgnore;
  }
  return result;
}

// What follows the first `patches` patches, behind a BOS of its own; the whole for 0.
PatchedSequence tail(const PatchedSequence& sequence, int64_t patches) {
  if (patches == 0) return sequence;
  const int64_t begin = sequence.starts[patches];
  PatchedSequence result;
  result.ids = {kBos};
  result.ids.insert(result.ids.end(), sequence.ids.begin() + begin, sequence.ids.end());
  result.starts = {0};
  for (size_t p = static_cast<size_t>(patches); p < sequence.starts.size(); ++p)
    result.starts.push_back(sequence.starts[p] - begin + 1);
  if (!sequence.targets.empty())
    result.targets.assign(sequence.targets.begin() + begin - 1, sequence.targets.end());
  return result;
}

}  // namespace

Pack::Pack(std::unique_ptr<Stage<PatchedSequence>> input, Options options)
    : input_(std::move(input)), options_(options) {
  TORCH_CHECK(!options_.patches || (options_.patched && *options_.patches >= 2),
              "Pack: a budget in patches is at least 2, and only for batches with patches");
}

std::optional<Batch> Pack::next() {
  const std::vector<PatchedSequence> sequences = options_.patches ? fill_patches() : fill_bytes();
  if (sequences.empty()) return std::nullopt;
  return options_.patched ? Batch::pack(sequences) : Batch::pack_bytes(sequences);
}

bool Pack::pull() {
  pending_input_ = StateWriter();
  input_->save(pending_input_);
  pending_ = input_->next();
  pending_patches_ = 0;
  return pending_.has_value();
}

std::vector<PatchedSequence> Pack::fill_bytes() {
  std::vector<PatchedSequence> result;
  int64_t bytes = 0;
  while (pending_ || pull()) {
    bytes += text_bytes(*pending_);
    if (!result.empty() && bytes > options_.bytes) break;
    result.push_back(std::move(*pending_));
    pending_.reset();
  }
  return result;
}

std::vector<PatchedSequence> Pack::fill_patches() {
  std::vector<PatchedSequence> result;
  int64_t room = *options_.patches;
  while (room >= 2 && (pending_ || pull())) {  // in one patch there is only room for a BOS
    PatchedSequence rest = tail(*pending_, pending_patches_);
    const int64_t count = num_patches(rest);
    if (count > room) {
      result.push_back(head(rest, room));
      pending_patches_ += room - (pending_patches_ > 0 ? 1 : 0);  // a tail's BOS is not the sequence's
      break;
    }
    result.push_back(std::move(rest));
    pending_.reset();
    room -= count;
  }
  return result;
}

void Pack::save(StateWriter& out) const {
  out.put("pending", pending_ ? 1 : 0);
  out.put("pending_patches", pending_ ? pending_patches_ : 0);
  if (pending_) {
    out.put("input", pending_input_);
  } else {
    StateWriter input = out.section("input");
    input_->save(input);
  }
}

void Pack::load(const StateReader& in) {
  input_->load(in.section("input"));
  pending_.reset();
  if (in.integer("pending") == 0) return;
  const int64_t patches = in.integer("pending_patches");
  if (!pull() || (patches > 0 && patches >= num_patches(*pending_)))
    throw Error("the data is no longer what it was when this state was saved: a sequence became shorter");
  pending_patches_ = patches;
}

}  // namespace blt
