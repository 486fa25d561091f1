#include "train/recorded_pass.h"

#include <ATen/Context.h>
#include <ATen/core/Generator.h>
#include <fmt/format.h>

#include <mutex>

#include "blt/base/error.h"
#include "data/batch_tensors.h"

namespace blt {
namespace {

constexpr int64_t kWarmUpSteps = 2;

// The state of the generator that modules take their seeds from (model/dropout.h).
at::Tensor random_state() {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  const std::lock_guard lock(generator.mutex());
  return generator.get_state();
}

}  // namespace

void refuse_ranks_with_graphs() {
  throw Error("train.cuda_graph: is for one rank, which has no transfers; set it to false");
}

RecordedPass::RecordedPass(torch::nn::Module& module, std::unique_ptr<GraphRecorder> recorder, Pass pass)
    : module_(module), pass_(std::move(pass)), recorder_(std::move(recorder)) {
  for (const auto& item : module.named_modules())
    if (auto* embedding = item.value()->as<NgramEmbeddingImpl>()) embeddings_.push_back(embedding);
}

PassResult RecordedPass::run(const Batch& batch, bool is_first) {
  take(batch);
  if (is_first) ++steps_;
  PassResult result;
  if (steps_ <= kWarmUpSteps) {
    recorder_->warm_up([&] { result = pass_(batch_); });
    return result;
  }
  Recording& recording = is_first ? first_ : later_;
  if (!recording.graph) record(recording);
  keep_rows(recording);
  recording.graph->replay();
  if (is_first)
    for (auto& [parameter, gradient] : gradients_) parameter.mutable_grad() = gradient;
  for (const Rows& rows : recording.rows) rows.embedding->row_gradients.push_back(rows.gradient);
  // The next replay writes over these.
  result.loss = recording.result.loss.clone();
  if (recording.result.byte_nll.defined()) result.byte_nll = recording.result.byte_nll.clone();
  return result;
}

// Makes it the batch that is read.
void RecordedPass::take(const Batch& batch) {
  if (!batch.text_documents.offsets.defined())
    throw Error(
        "train.cuda_graph: the batches have no filler, so each has its own sizes; give data.batch_sequences");
  const bool is_first = !batch_.bytes.defined();
  const auto sizes = [](const Batch& of) {
    std::vector<int64_t> result{of.documents.longest, of.patches.longest, of.latent_documents.longest,
                                of.readers.longest};
    for_each_tensor(
        of, [&](const at::Tensor& tensor) { result.push_back(tensor.defined() ? tensor.numel() : -1); });
    return result;
  };
  if (!is_first && sizes(batch) != sizes(batch_))
    throw Error(
        fmt::format("train.cuda_graph: a batch of {} ids, {} patches and {} sequences after one of {}, {} "
                    "and {}: all have "
                    "to have the same sizes, and the same longest segments",
                    batch.bytes.numel(), batch.patches.count, batch.documents.count, batch_.bytes.numel(),
                    batch_.patches.count, batch_.documents.count));
  std::vector<at::Tensor> kept;
  for_each_tensor(batch_, [&](const at::Tensor& tensor) { kept.push_back(tensor); });
  batch_ = batch;  // numbers on the host, which count until the recording
  size_t i = 0;
  for_each_tensor(batch_, [&](at::Tensor& tensor) {
    if (tensor.defined()) tensor = is_first ? tensor.clone() : kept[i].copy_(tensor, /*non_blocking=*/true);
    ++i;
  });
}

void RecordedPass::record(Recording& recording) {
  std::vector<size_t> before;
  for (const NgramEmbeddingImpl* embedding : embeddings_) before.push_back(embedding->row_gradients.size());
  const at::Tensor random_before = random_state();
  recording.graph = recorder_->record([&] { recording.result = pass_(batch_); });
  if (!random_state().equal(random_before))
    throw Error(
        "train.cuda_graph: dropout takes another seed in every step, which a graph cannot; set every dropout "
        "to 0, "
        "or cuda_graph to false");
  for (size_t i = 0; i < embeddings_.size(); ++i) {
    auto& rows = embeddings_[i]->row_gradients;
    for (size_t r = before[i]; r < rows.size(); ++r)
      recording.rows.push_back({embeddings_[i], std::move(rows[r])});
    rows.resize(before[i]);
  }
  if (!gradients_.empty()) return;  // a later batch adds to those
  for (at::Tensor& parameter : module_.parameters())
    if (parameter.grad().defined()) gradients_.emplace_back(parameter, parameter.grad());
}

// What an earlier replay in this step left where this one writes.
void RecordedPass::keep_rows(const Recording& recording) {
  for (const Rows& written : recording.rows)
    for (RowGradient& rows : written.embedding->row_gradients)
      if (rows.values.is_alias_of(written.gradient.values))
        rows = {rows.ids.clone(), rows.values.clone(), rows.count.clone(), rows.capacity};
}

}  // namespace blt
