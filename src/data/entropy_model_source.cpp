#include "blt/data/entropy_model_source.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "blt/base/config_io.h"
#include "blt/batch.h"
#include "data/hash.h"
#include "ops/cpu/dispatch.h"

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

at::Tensor int32_tensor(const std::vector<int32_t>& values, at::Device device) {
  at::Tensor result = at::empty({static_cast<int64_t>(values.size())}, at::kInt);
  std::copy(values.begin(), values.end(), result.data_ptr<int32_t>());
  return result.to(device);
}

}  // namespace

EntropyModelSource::EntropyModelSource(EntropyModel model, Options options)
    : model_(std::move(model)), options_(options), device_(model_->parameters().front().device()) {
  for (const at::Tensor& parameter : model_->parameters())
    TORCH_CHECK(!parameter.requires_grad(), "EntropyModelSource: the model is not frozen (blt::freeze)");
}

std::vector<SequenceScores> EntropyModelSource::scores(std::span<const std::vector<int32_t>> sequences) {
  std::vector<SequenceScores> results(sequences.size());
  const std::span<SequenceScores> all(results);
  for (size_t begin = 0; begin < sequences.size();) {
    size_t end = begin;
    int64_t total = 0;
    do total += static_cast<int64_t>(sequences[end++].size());
    while (end < sequences.size() && total < options_.batch_bytes);
    score_batch(sequences.subspan(begin, end - begin), all.subspan(begin, end - begin));
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
  return fmt::format("{:016x}{:016x} {} {} {}{} {}", weights.words[0], weights.words[1],
                     c10::toString(model_->parameters().front().scalar_type()),
                     options_.reset_at_newline ? "lines" : "sequences",
                     c10::DeviceTypeName(device_.type(), /*lower_case=*/true),
                     device_.is_cpu() ? static_cast<int>(ops::isa()) : 0, kArithmetic);
}

void EntropyModelSource::score_batch(std::span<const std::vector<int32_t>> sequences,
                                     std::span<SequenceScores> results) {
  std::vector<int32_t> ids, targets;
  std::vector<int64_t> contexts;
  for (const std::vector<int32_t>& sequence : sequences) {
    TORCH_CHECK(!sequence.empty(), "EntropySource::scores: a sequence has at least one id");
    ids.insert(ids.end(), sequence.begin(), sequence.end());
    targets.insert(targets.end(), sequence.begin() + 1, sequence.end());
    targets.push_back(kIgnore);
    append_contexts(sequence, options_.reset_at_newline, contexts);
  }
  const EntropyModelImpl::Scores scores =
      model_->scores(int32_tensor(ids, device_), int32_tensor(targets, device_),
                     Segments::from_lengths(contexts).to(device_));
  const at::Tensor entropy = scores.entropy.cpu().contiguous(), nll = scores.nll.cpu().contiguous();
  const float* entropies = entropy.const_data_ptr<float>();
  const float* nlls = nll.const_data_ptr<float>();
  size_t offset = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const size_t end = offset + sequences[s].size();
    results[s].entropies.assign(entropies + offset, entropies + end);
    results[s].nll.assign(nlls + offset, nlls + end);
    offset = end;
  }
}

}  // namespace blt
