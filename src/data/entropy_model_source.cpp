#include "blt/data/entropy_model_source.h"

#include <c10/core/StreamGuard.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "blt/batch.h"
#include "blt/ops/arithmetic.h"
#include "data/forward_slots.h"
#include "data/hash.h"
#include "model/device_mark.h"

namespace blt {
namespace {

// Raised when a change of the kernels changes the bits of entropies: stored ones are then not found any more.
constexpr int kArithmetic = 1;

constexpr int32_t kNewline = '\n' + kByteOffset;

// Lengths of the pieces in which the model's context holds: the whole sequence, or up to and including each
// newline.
void append_contexts(const std::vector<int32_t>& ids, bool reset_at_newline, std::vector<int64_t>& lengths) {
  auto begin = ids.begin();
  while (reset_at_newline) {
    const auto newline = std::find(begin, ids.end(), kNewline);
    if (newline == ids.end() || newline + 1 == ids.end()) break;
    lengths.push_back(newline + 1 - begin);
    begin = newline + 1;
  }
  lengths.push_back(ids.end() - begin);
}

// What fills a pass up: contexts of a length that costs little and makes none the longest.
constexpr int32_t kFiller = ' ' + kByteOffset;
constexpr int64_t kFillerContext = 256;

// `values` in the first of `memory`'s rows, and from there on the device.
template <class T>
at::Tensor on_device(const std::vector<T>& values, const at::Tensor& memory, at::Device device) {
  const at::Tensor rows = memory.slice(0, 0, static_cast<int64_t>(values.size()));
  std::copy(values.begin(), values.end(), rows.data_ptr<T>());
  return rows.to(device, /*non_blocking=*/true);
}

// Ids of some text or other.
std::vector<int32_t> made_up_ids(int64_t count, int64_t seed) {
  std::vector<int32_t> ids{kBos};
  for (int64_t i = 1; i < count; ++i)
    ids.push_back(static_cast<int32_t>(kByteOffset + (i * i * 7 + i + seed) % 256));
  return ids;
}

}  // namespace

EntropyModelSource::EntropyModelSource(EntropyModel model, Options options)
    : model_(std::move(model)), options_(options), device_(model_->parameters().front().device()) {
  for (const at::Tensor& parameter : model_->parameters())
    TORCH_CHECK(!parameter.requires_grad(), "EntropyModelSource: the model is not frozen (blt::freeze)");
  TORCH_CHECK(device_.is_cpu() || (options.rows > 0 && options.at_once > 0), "EntropyModelSource: on ",
              device_, " rows and at_once have to be given");
  TORCH_CHECK(options.at_once == 0 || options.rows > 0, "EntropyModelSource: at_once without rows");
  if (options.at_once > 0) {
    DeviceMark(device_).wait();  // the weights are there; passes read them on other streams
    slots_ = std::make_unique<ForwardSlots>(device_, options.at_once, options.rows);
  }
  if (options.rows > 0) check_places();
}

EntropyModelSource::~EntropyModelSource() = default;

std::vector<SequenceScores> EntropyModelSource::scores(std::span<const std::vector<int32_t>> sequences) {
  return compute(sequences, Wanted::kAll);
}

std::vector<std::vector<float>> EntropyModelSource::entropies(
    std::span<const std::vector<int32_t>> sequences) {
  std::vector<std::vector<float>> result;
  for (SequenceScores& of_sequence : compute(sequences, Wanted::kEntropies))
    result.push_back(std::move(of_sequence.entropies));
  return result;
}

std::vector<SequenceScores> EntropyModelSource::compute(std::span<const std::vector<int32_t>> sequences,
                                                        Wanted wanted) {
  std::vector<SequenceScores> results(sequences.size());
  const std::span<SequenceScores> all(results);
  const auto has_room = [&](int64_t ids, int64_t more) {
    return options_.rows > 0 ? ids + more <= options_.rows : ids < options_.batch_bytes;
  };
  for (size_t begin = 0; begin < sequences.size();) {
    size_t end = begin;
    int64_t total = 0;
    do total += static_cast<int64_t>(sequences[end++].size());
    while (end < sequences.size() && has_room(total, static_cast<int64_t>(sequences[end].size())));
    score_batch(sequences.subspan(begin, end - begin), all.subspan(begin, end - begin), wanted);
    begin = end;
  }
  return results;
}

std::string EntropyModelSource::identity() const {
  Hash128 hash;
  hash.update(to_yaml(model_->config()));
  for (const auto& parameter : model_->named_parameters()) {
    const at::Tensor value = parameter.value().cpu().contiguous();
    hash.update(parameter.key());
    hash.update({static_cast<const char*>(value.const_data_ptr()), value.nbytes()});
  }
  const EntropyKey weights = hash.digest();
  return fmt::format("{:016x}{:016x} {} {} {} {}{}", weights.words[0], weights.words[1],
                     c10::toString(model_->parameters().front().scalar_type()),
                     options_.reset_at_newline ? "lines" : "sequences", ops::arithmetic(device_), kArithmetic,
                     options_.rows > 0 ? fmt::format(" {} rows", options_.rows) : "");
}

void EntropyModelSource::score_batch(std::span<const std::vector<int32_t>> sequences,
                                     std::span<SequenceScores> results, Wanted wanted) {
  std::vector<int32_t> ids, targets;
  std::vector<int64_t> contexts;
  for (const std::vector<int32_t>& sequence : sequences) {
    TORCH_CHECK(!sequence.empty(), "EntropySource::scores: a sequence has at least one id");
    ids.insert(ids.end(), sequence.begin(), sequence.end());
    targets.insert(targets.end(), sequence.begin() + 1, sequence.end());
    targets.push_back(kIgnore);
    append_contexts(sequence, options_.reset_at_newline, contexts);
  }
  const auto used = static_cast<int64_t>(ids.size());
  const int64_t rows = options_.rows > 0 ? options_.rows : used;
  TORCH_CHECK(used <= rows, "EntropyModelSource: a sequence of ", used, " ids, but passes have ", rows,
              " rows");
  ids.resize(static_cast<size_t>(rows), kFiller);
  targets.resize(static_cast<size_t>(rows), kIgnore);
  for (int64_t rest = rows - used; rest > 0; rest -= kFillerContext)
    contexts.push_back(std::min(rest, kFillerContext));
  Segments segments = Segments::from_lengths(contexts);

  std::optional<ForwardSlot> own;
  std::optional<ForwardSlots::Lease> lease;
  if (slots_)
    lease.emplace(*slots_);
  else
    own.emplace(device_, rows);
  const ForwardSlot& slot = lease ? **lease : *own;
  const c10::OptionalStreamGuard on_stream(slot.stream);
  segments.offsets = slot.offsets.slice(0, 0, segments.offsets.size(0)).copy_(segments.offsets);
  const EntropyModelImpl::Scores scores = model_->scores(
      on_device(ids, slot.ids, device_), on_device(targets, slot.targets, device_), segments.to(device_));
  slot.entropies.slice(0, 0, rows).copy_(scores.entropy, /*non_blocking=*/true);
  if (wanted == Wanted::kAll) slot.nll.slice(0, 0, rows).copy_(scores.nll, /*non_blocking=*/true);
  DeviceMark(device_).wait();  // for this stream, not for the device

  const float* entropies = slot.entropies.const_data_ptr<float>();
  const float* nlls = slot.nll.const_data_ptr<float>();
  size_t offset = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const size_t end = offset + sequences[s].size();
    results[s].entropies.assign(entropies + offset, entropies + end);
    if (wanted == Wanted::kAll) results[s].nll.assign(nlls + offset, nlls + end);
    offset = end;
  }
}

// Entropies decide where patches start, live and from the cache, before a break and after it, so a sequence's may not depend on the others of
// its pass. What a library's kernels do is seen here, and not taken on trust.
void EntropyModelSource::check_places() {
  const auto scores_of_last = [&](const std::vector<std::vector<int32_t>>& pass) {
    std::vector<SequenceScores> results(pass.size());
    score_batch(pass, results, Wanted::kAll);
    return std::move(results.back());
  };
  // As long as a context can be: tables that grow with it (of rotary angles) are made here, before several streams read them.
  scores_of_last({made_up_ids(options_.rows, 0)});
  const int64_t size = std::clamp<int64_t>(options_.rows / 4, 1, 1024), before = options_.rows - size;
  const std::vector<int32_t> sequence = made_up_ids(size, 1);
  const SequenceScores first = scores_of_last({sequence});
  std::vector<std::vector<std::vector<int32_t>>> passes;
  if (before > 0) passes.push_back({made_up_ids(before, 2), sequence});
  if (before > 4) passes.push_back({made_up_ids(before / 4, 3), made_up_ids(before / 3, 4), sequence});
  for (const std::vector<std::vector<int32_t>>& pass : passes) {
    const SequenceScores other = scores_of_last(pass);
    if (other.entropies != first.entropies || other.nll != first.nll)
      throw Error(
          fmt::format("entropies of a sequence computed on {} depend on what it is computed with, so patches "
                      "could not be "
                      "those of a cache or of a resumed run: compute them on the CPU "
                      "(data.entropy_device=cpu), or try the "
                      "other data.entropy_compute",
                      device_.str()));
  }
}

}  // namespace blt
