// Forward, loss and backward of a batch, recorded once and replayed for every other batch (train.cuda_graph).
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "blt/batch.h"
#include "blt/model/ngram_embedding.h"
#include "blt/train/device_graph.h"

namespace blt {

// What the pass of a batch gives besides gradients.
struct PassResult {
  at::Tensor loss;      // [] its share of the loss of a step
  at::Tensor byte_nll;  // [] as in LossValue
};

// Passes of several ranks are not recorded: throws the blt::Error that says so.
[[noreturn]] void refuse_ranks_with_graphs();

// Gradients are where a pass leaves them: those of a step's first batch are new, and those of others are added to them. Each of the two is
// recorded when two steps have passed, in which what is made once was made. Not thread-safe.
class RecordedPass {
 public:
  using Pass = std::function<PassResult(const Batch&)>;

  // pass: adds the gradients of a batch to those of `module`, which must outlive this, and asks nothing of the host but the batch's tensors.
  RecordedPass(torch::nn::Module& module, std::unique_ptr<GraphRecorder> recorder, Pass pass);

  // is_first: of a step, when the module has no gradients. Throws blt::Error for a batch without filler or of other sizes than the first, and
  // where a pass draws random numbers on the host (dropout) or cannot be recorded.
  PassResult run(const Batch& batch, bool is_first);

 private:
  // Touched rows of n-gram tables, and where a backward appends them.
  struct Rows {
    NgramEmbeddingImpl* embedding;
    RowGradient gradient;
  };
  struct Recording {
    std::unique_ptr<DeviceGraph> graph = nullptr;  // null: not recorded yet
    PassResult result = {};
    std::vector<Rows> rows = {};
  };

  void take(const Batch& batch);
  void record(Recording& recording);
  void keep_rows(const Recording& recording);

  torch::nn::Module& module_;
  Pass pass_;
  std::vector<NgramEmbeddingImpl*> embeddings_;
  int64_t steps_ = 0;
  Batch batch_ = {};  // what the recordings read
  // Those that the recordings write; the recorder, whose they are, goes last.
  std::unique_ptr<GraphRecorder> recorder_;
  std::vector<std::pair<at::Tensor, at::Tensor>> gradients_ = {};  // parameters and theirs
  Recording first_ = {}, later_ = {};
};

}  // namespace blt
