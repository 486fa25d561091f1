// All that a backward pass leaves behind: dense gradients, and the touched rows of the n-gram tables.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <span>
#include <string>
#include <vector>

#include "blt/ops/ngram_embedding.h"

namespace blt {

// The type of a parameter's gradient, and of all that the optimizer keeps of it: float64 for float64, else float32.
at::ScalarType gradient_type(const at::Tensor& parameter);

struct Gradients {
  struct Dense {
    std::string name;
    at::Tensor parameter;  // with ZeRO-3 there may be nothing behind its shape and type
    // Of gradient_type(); the parameter's shape, or one dimension with the part that this rank's optimizer moves (Parts in optimizer.h): empty
    // where other ranks move all of it.
    at::Tensor gradient;
    at::Tensor part =
        {};  // where that part of the parameter is, as long as the gradient; undefined: all of it
  };
  struct Rows {
    std::string name;
    at::Tensor table;  // where tables are divided there is nothing behind its shape and type
    // Merged over the micro-batches of the step; ids count from the first row of the part that this rank's optimizer moves.
    RowGradient gradient;
    at::Tensor part = {};  // where those rows of the table are, one dimension; undefined: all of it
  };
  std::vector<Dense> dense;  // of the same parameters, in the same order, on all ranks
  std::vector<Rows> rows;
};

// Takes the gradients out of the module: afterwards its parameters have none, and its n-gram embeddings hold
// no rows. Parameters that took no part in the backward are left out.
Gradients take_gradients(torch::nn::Module& module);

// []: the norm of everything, float32, or float64 where the gradients are; 0 of nothing. Stays on the device.
at::Tensor norm(const Gradients& gradients);

// The parts of a model that norms are shown of: its modules that take gradients (`local_encoder`), in their order, and all its n-gram
// tables as one (`ngram_tables`).
std::vector<std::string> gradient_modules(const torch::nn::Module& module);
// [modules] float64: the square of each one's norm; 0 where there is no gradient. Stays on the device. Throws c10::Error when a gradient
// belongs to none of them.
at::Tensor squared_norms(const Gradients& gradients, std::span<const std::string> modules);

// The norm, and what to multiply gradients by so that it is at most `max_norm`. Both stay on the device.
struct ClipResult {
  at::Tensor norm;       // []
  at::Tensor scale;      // [] of the norm's type: min(1, max_norm / norm); NaN or infinite when a gradient is
  at::Tensor found_inf;  // [] float32: 1 when a gradient or the loss is NaN or infinite, else 0
};
// max_norm 0: no clipping. loss: [], counts among the gradients when it is not finite; may be undefined. The optimizer multiplies.
ClipResult clip(const at::Tensor& norm, double max_norm, const at::Tensor& loss = {});
inline ClipResult clip(const Gradients& gradients, double max_norm, const at::Tensor& loss = {}) {
  return clip(norm(gradients), max_norm, loss);
}

}  // namespace blt
