// What a training step would take in memory, found out by taking one on the meta device: every operator says there how large its results
// are, and autograd keeps what it would keep, but no memory is behind them.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "blt/batch.h"

namespace blt {

// Bytes of tensors, in addition to parameters and the batch.
struct StepMemory {
  // By part of the model, in the order of the forward: what it keeps for the backward (of the first micro-batch).
  std::vector<std::pair<std::string, int64_t>> kept = {};
  int64_t peak = 0;       // the most at any time
  int64_t gradients = 0;  // of that, dense gradients
};

// Says that a part of the forward is done.
using PartDone = std::function<void(const std::string& part)>;

// module: its parameters are on the meta device. loss: of a batch, []. micro_batches: whose gradients are added up. gradients_leave: a
// gradient is taken away as soon as it is complete, in the last of them (into a bucket, which is not counted here). Gradients of n-gram tables
// count with a row for each look-up. What operators use inside themselves is not seen, but for the float32 copies of 16-bit tensors that those of the
// CPU make, where `device` is the CPU. Throws c10::Error when an operator
// has no kernel for the meta device. One thread at a time.
StepMemory measure_step(torch::nn::Module& module,
                        const std::function<at::Tensor(const Batch&, const PartDone&)>& loss,
                        const Batch& batch, int64_t micro_batches, bool gradients_leave, at::Device device);

}  // namespace blt
