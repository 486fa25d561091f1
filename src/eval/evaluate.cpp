#include "blt/eval/evaluate.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/seconds_since.h"
#include "blt/base/error.h"
#include "blt/ops/cross_entropy.h"
#include "eval/windows.h"

namespace blt {
namespace {

// Ids of as many windows as are read at once; empty at the end.
std::vector<Window> take_batch(Windows& windows, std::optional<Window>& pending, int64_t batch_bytes) {
  std::vector<Window> batch;
  int64_t total = 0;
  while (pending) {
    total += static_cast<int64_t>(pending->ids.size());
    if (!batch.empty() && total > batch_bytes) break;
    batch.push_back(std::move(*pending));
    pending = windows.next();
  }
  return batch;
}

// Scores one batch after the other and adds up.
class Scorer {
 public:
  Scorer(const EvaluatedModel& model, const EvaluateOptions& options) : model_(model), options_(options) {
    if (model.patcher) result_.patches.emplace();
  }

  void add(std::vector<Window> windows) {
    const std::vector<SequenceScores> scores = entropy_scores(windows);
    std::vector<PatchedSequence> sequences;
    for (size_t i = 0; i < windows.size(); ++i) {
      Window& window = windows[i];
      PatchedSequence& sequence = sequences.emplace_back();
      if (model_.patcher)
        sequence.starts =
            model_.patcher->starts(window.ids, scores.empty() ? std::span<const float>()
                                                              : std::span<const float>(scores[i].entropies));
      sequence.targets.assign(window.ids.size(), kIgnore);
      std::copy(window.ids.begin() + window.first, window.ids.end(),
                sequence.targets.begin() + window.first - 1);
      sequence.ids = std::move(window.ids);
      count(sequence, window);
    }
    const Batch batch =
        (model_.patcher ? Batch::pack(sequences) : Batch::pack_bytes(sequences)).to(model_.device);
    const at::Tensor logits = model_.forward(batch);
    const ops::CrossEntropy result = ops::cross_entropy(logits, batch.targets);
    nll_ += result.nll.sum(at::kDouble).item<double>();
    if (options_.observe) observe(windows, std::move(sequences), scores, logits, result);
  }

  Evaluation finish() {
    if (result_.bytes > 0 && !std::isfinite(nll_))
      throw Error("the model's logits are not finite: its weights are damaged, or its training went wrong");
    result_.bits_per_byte = bits_per_byte(nll_, result_.bytes);
    if (model_.entropies)
      result_.entropy_model_bits_per_byte = bits_per_byte(entropy_model_nll_, result_.bytes);
    return result_;
  }

 private:
  std::vector<SequenceScores> entropy_scores(const std::vector<Window>& windows) {
    if (!model_.entropies) return {};
    std::vector<std::vector<int32_t>> ids;
    for (const Window& window : windows) ids.push_back(window.ids);
    std::vector<SequenceScores> scores = model_.entropies->scores(ids);
    for (size_t i = 0; i < windows.size(); ++i)
      entropy_model_nll_ = std::accumulate(scores[i].nll.begin() + windows[i].first - 1,
                                           scores[i].nll.end() - 1, entropy_model_nll_);
    return scores;
  }

  void count(const PatchedSequence& sequence, const Window& window) {
    const auto size = static_cast<int64_t>(sequence.ids.size());
    result_.bytes += size - window.first;
    ++result_.sequences;
    result_.documents += window.starts_document ? 1 : 0;
    if (!result_.patches) return;
    // A patch that a window's own bytes go on with was counted where it started.
    result_.patches->bytes += size - window.first;
    result_.patches->patches +=
        std::count_if(sequence.starts.begin(), sequence.starts.end(),
                      [&](int64_t start) { return start >= window.first && start < size; });
  }

  void observe(const std::vector<Window>& windows, std::vector<PatchedSequence> sequences,
               const std::vector<SequenceScores>& scores, const at::Tensor& logits,
               const ops::CrossEntropy& result) const {
    const at::Tensor own_entropies = result.entropy.cpu();
    const at::Tensor nll = result.nll.cpu();
    int64_t offset = 0;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const auto size = static_cast<int64_t>(sequences[i].ids.size());
      ScoredSequence scored{.ids = std::move(sequences[i].ids),
                            .first = windows[i].first,
                            .starts = std::move(sequences[i].starts),
                            .entropies = {},
                            .logits = logits.slice(0, offset, offset + size),
                            .nll = nll.slice(0, offset, offset + size)};
      if (!scores.empty()) {
        scored.entropies = scores[i].entropies;
      } else if (!model_.patcher) {
        const float* own = own_entropies.const_data_ptr<float>() + offset;
        scored.entropies.assign(own, own + size);
      }
      options_.observe(scored);
      offset += size;
    }
  }

  const EvaluatedModel& model_;
  const EvaluateOptions& options_;
  Evaluation result_;
  double nll_ = 0;
  double entropy_model_nll_ = 0;
};

}  // namespace

Evaluation evaluate(const EvaluatedModel& model, Stage<Sequence>& sequences, const EvaluateOptions& options) {
  const at::NoGradGuard no_grad;
  const auto started = std::chrono::steady_clock::now();
  Windows windows(sequences, options.context_bytes);
  Scorer scorer(model, options);
  std::optional<Window> pending = windows.next();
  while (pending) scorer.add(take_batch(windows, pending, options.batch_bytes));
  Evaluation result = scorer.finish();
  result.seconds = seconds_since(started);
  return result;
}

}  // namespace blt
