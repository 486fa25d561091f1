// The one definition of bits per byte, and the measure of a model on batches.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "blt/batch.h"
#include "blt/data/stage.h"

namespace blt {

// nll_sum / (num_bytes * ln 2): what a model needs for a byte of text. nll_sum: -log p in nats, summed over the
// targets that are bytes, each byte of the text once; special ids count nowhere. NaN without bytes.
double bits_per_byte(double nll_sum, int64_t num_bytes);

// How a model turns a batch into [T, V] logits.
using Forward = std::function<at::Tensor(const Batch&)>;

// What a model needs for some text.
struct ByteNll {
  double nll_sum = 0;  // as above
  int64_t num_bytes = 0;

  double bits_per_byte() const { return blt::bits_per_byte(nll_sum, num_bytes); }
};
// Over the byte targets of all the batches that are left, without gradients. Summed in float64. The caller sets the model's mode (eval())
// and sees to devices.
ByteNll byte_nll(const Forward& forward, Stage<Batch>& batches);

}  // namespace blt
