// What training minimises.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "blt/batch.h"

namespace blt {

struct LossValue {
  at::Tensor
      sum;  // [] the loss summed over the batch's targets, differentiable; the trainer divides by the number
            // of targets of the whole step, so that a step does not depend on how it was split into batches
  at::Tensor byte_nll;  // [] without gradient: -log p summed over targets that are bytes, in nats, for bits
                        // per byte; may be undefined
};

// logits [T, V], in the compute type of the model, and the batch they are about. Losses are float32.
using Loss = std::function<LossValue(const at::Tensor& logits, const Batch& batch)>;

// Cross-entropy of each next id.
LossValue next_id_loss(const at::Tensor& logits, const Batch& batch);

}  // namespace blt
