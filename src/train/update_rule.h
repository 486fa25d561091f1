// How parameters move: one rule for each kind of optimizer. The optimizer (blt/train/optimizer.h) says which rule moves which parameter and
// keeps their state.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "blt/train/optimizer.h"
#include "train/whole_matrices.h"

namespace blt {

// One parameter's update. What a step whose clip found a NaN or an infinity would do is masked: it changes nothing.
struct Update {
  std::string_view name = {};
  at::IntArrayRef sizes = {};  // of the whole parameter
  // Of gradient_type(), moved in place: the parameter (or the optimizer's part of it), or its master. Undefined where other ranks move all of
  // it: then there is nothing below either.
  at::Tensor target = {};
  at::Tensor gradient = {};            // like target; undefined where there are rows
  const RowGradient* rows = nullptr;   // of an n-gram table, whose target is [rows, C]
  int64_t first_row = 0;               // of the whole table, that target begins with
  at::Tensor rounded = {};             // the table in bfloat16, where the target is its master: moved with it
  std::vector<at::Tensor> state = {};  // UpdateRule::kept(), moved in place; of rows in their shapes
  at::Tensor step = {};                // [] float32: steps taken, with this one
  double learning_rate = 0.0;
  double weight_decay = 0.0;  // decoupled, times the learning rate
};

// A tensor that a rule keeps of a parameter; 0 at first.
struct Kept {
  std::string_view name;
  bool is_bfloat16 = false;  // else of the parameter's gradient_type()
  bool is_by_row = false;    // one number for each row of a table, else the parameter's shape

  at::ScalarType type(const at::Tensor& parameter) const {
    return is_bfloat16 ? at::kBFloat16 : gradient_type(parameter);
  }
};

// Not thread-safe.
class UpdateRule {
 public:
  virtual ~UpdateRule() = default;
  // of_table: of an n-gram table, else of any other parameter.
  virtual std::vector<Kept> kept(bool of_table) const = 0;
  // Moves what a step moves by this rule; nothing is a step too. The same parameters in the same order on all ranks. matrices: for a rule that
  // needs more of them than the optimizer's parts.
  virtual void step(const std::vector<Update>& updates, const ClipResult& clip,
                    const WholeMatrices& matrices) const = 0;
};

// AdamW; rows of n-gram tables by ops/row_adamw.h, without a dense gradient, with the state that the config gives them. Decay as in Update.
// seed: of the rounding of bfloat16 state.
//
// Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (arXiv:1711.05101).
std::unique_ptr<UpdateRule> make_adamw(const OptimizerConfig& config, int64_t seed);

// Muon, for matrices [out, in] alone: a matrix moves along its momentum (Nesterov's), made orthogonal as a whole by Newton-Schulz steps, times
// 0.2 sqrt(max(out, in)). With that factor an element moves about as far as AdamW would move it, so that both rules share one learning rate and
// one decay.
//
// Source: Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024), the iteration and its coefficients; Liu et al., Muon
// is Scalable for LLM Training (arXiv:2502.16982), section 2.2, the factor and the decay.
std::unique_ptr<UpdateRule> make_muon(const OptimizerConfig& config);

// The matrix [out, in] with its singular values brought near 1 (0.7 to 1.2) by so many steps; of its type.
at::Tensor orthogonalized(const at::Tensor& matrix, int64_t steps);
// Elements of the tensors that are there with it at its peak, the matrix included.
int64_t orthogonalizing_elements(int64_t out, int64_t in);

}  // namespace blt
