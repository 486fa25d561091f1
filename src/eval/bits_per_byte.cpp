#include "blt/eval/bits_per_byte.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <limits>
#include <numbers>
#include <optional>

#include "blt/ops/cross_entropy.h"

namespace blt {

double bits_per_byte(double nll_sum, int64_t num_bytes) {
  if (num_bytes == 0) return std::numeric_limits<double>::quiet_NaN();
  return nll_sum / (static_cast<double>(num_bytes) * std::numbers::ln2);
}

ByteNll byte_nll(const Forward& forward, Stage<Batch>& batches) {
  const at::NoGradGuard no_grad;
  ByteNll result;
  at::Tensor sum;  // [] stays on the device until there are no more
  while (const std::optional<Batch> batch = batches.next()) {
    const at::Tensor nll = ops::cross_entropy(forward(*batch), batch->targets).nll;
    const at::Tensor own = (nll * (batch->targets >= kByteOffset)).sum(at::kDouble);
    sum = sum.defined() ? sum + own : own;
    result.num_bytes += batch->num_byte_targets;
  }
  if (sum.defined()) result.nll_sum = sum.item<double>();
  return result;
}

}  // namespace blt
