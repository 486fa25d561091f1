#include "blt/train/loss.h"

#include <ATen/TensorOperators.h>

#include "blt/ops/cross_entropy.h"

namespace blt {

LossValue next_id_loss(const at::Tensor& logits, const Batch& batch) {
  const at::Tensor nll = ops::cross_entropy(logits, batch.targets).nll;
  const at::Tensor sum = nll.sum();
  const at::Tensor detached = nll.detach();
  // Batches that are filled all compute the same, whatever their numbers are.
  return {sum, batch.num_targets == batch.num_byte_targets && !batch.text_documents.offsets.defined()
                   ? sum.detach()
                   : (detached * (batch.targets >= kByteOffset)).sum()};
}

}  // namespace blt
