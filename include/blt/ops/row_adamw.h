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
  // Of the rounding of bfloat16 moments. The number that the table's first row has there: of a part of a table, its place in the whole one.
  int64_t seed = 0, first_row = 0;
  // [] float32 on the table's device; where it is defined, it counts instead of `step`, so that nobody waits for the device. 0 is as 1: such
  // a step changes nothing.
  at::Tensor step_on_device = {};
};

//   table       [R, C] float32, or (CPU) float64
//   exp_avg     [R, C] of the table's type; of a float32 table, also bfloat16
//   exp_avg_sq  [R, C] like exp_avg, or [R] of the table's type: one number for each row, the mean of its squared gradients
//   gradient    touched rows; values of the table's width
//   scale       [] of the table's type, on the device: multiplies the gradient (clipping); NaN or
//   infinite: nothing changes
//   rounded     [R, C] bfloat16, or undefined: of a float32 table, what computes with it has; rows that move are written, rounded to the nearest
//
// The first three and `rounded` are changed in place. All four kinds of state go with both updates. Bytes of state an element (6 x 500,002 x 1,024 of them):
// 8 (24.6 GB) in float32, 4 (12.3 GB) in bfloat16 or in float32 with a second moment for each row, 2 (6.2 GB) with both.
//
// Exact: every row moves as dense AdamW with a zero gradient elsewhere would move it (moments decay, the
// table follows them and its weight decay). One sweep over the three tensors at copy speed, no dense
// gradient. With touched_only, nothing but the touched rows is read or written. Throws c10::Error on a wrong shape, dtype or device.
//
// bfloat16: a step computes in float32 what it would with float32 moments, moves the table by that, and rounds the moments at random so
// that they are right on average (a decay by 0.999 is less than bfloat16 resolves, and would be lost otherwise). The random bits follow from
// seed, step, row and column alone: they do not depend on threads, on what else is in the gradient, on the device, or on which rows of a table
// are here.
//
// Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (arXiv:1711.05101), algorithm 2; a second moment for each row: Mudigere et
// al., Software-Hardware Co-design for Fast and Scalable Training of Deep Learning Recommendation Models (arXiv:2104.05158), where
// Adagrad has it; rounding: Gupta et al., Deep Learning with Limited Numerical Precision (arXiv:1502.02551).
void row_adamw_(at::Tensor& table, at::Tensor& exp_avg, at::Tensor& exp_avg_sq, const RowGradient& gradient,
                const at::Tensor& scale, const AdamWStep& step, const at::Tensor& rounded = {});

}  // namespace blt::ops
