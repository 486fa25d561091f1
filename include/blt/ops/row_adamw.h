// AdamW over a table from the gradient of its touched rows.
#pragma once

#include <ATen/core/Tensor.h>

#include "blt/ops/ngram_embedding.h"

namespace blt::ops {

struct AdamWStep {
  double learning_rate = 0.0;  // of this step
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.0;  // decoupled: the table shrinks by learning_rate * weight_decay
  int64_t step = 1;           // from 1: bias correction
  bool touched_only = false;  // lazy: rows that are not in the gradient stay as they are
  // [] float32 on the table's device; where it is defined, it counts instead of `step`, so that nobody waits for the device. 0 is as 1: such
  // a step changes nothing.
  at::Tensor step_on_device = {};
};

//   table, exp_avg, exp_avg_sq  [R, C] float32, or (CPU) float64, changed in place
//   gradient                    touched rows; values of the table's width
//   scale                       [] of the table's type, on the device: multiplies the gradient (clipping); NaN or
//   infinite: nothing changes
//
// Exact: every row moves as dense AdamW with a zero gradient elsewhere would move it (moments decay, the
// table follows them and its weight decay). One sweep over the three tensors at copy speed, no dense
// gradient. With touched_only, nothing but the touched rows is read or written. Throws c10::Error on a wrong shape, dtype or device.
//
// Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (arXiv:1711.05101), algorithm 2.
void row_adamw_(at::Tensor& table, at::Tensor& exp_avg, at::Tensor& exp_avg_sq, const RowGradient& gradient,
                const at::Tensor& scale, const AdamWStep& step);

}  // namespace blt::ops
