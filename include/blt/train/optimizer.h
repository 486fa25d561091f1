// AdamW over dense parameters and over the touched rows of n-gram tables.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

#include "blt/base/config.h"
#include "blt/train/gradients.h"

namespace blt {

struct AdamWConfig {
  double learning_rate = 4e-4;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;

  static void fields(auto& self, auto&& field) {
    field("learning_rate", self.learning_rate, "Peak learning rate per step.", at_least(0));
    field("beta1", self.beta1, "Decay of the mean of gradients, per step.", between(0, 0.999999));
    field("beta2", self.beta2, "Decay of the mean of squared gradients, per step.", between(0, 0.999999));
    field("eps", self.eps, "Added to the root of the mean square.", above(0));
    field("weight_decay", self.weight_decay,
          "Decoupled decay per step, times the learning rate; matrices and tables only.", at_least(0));
  }
};

// Exact AdamW: rows of n-gram tables that a step did not touch move as a zero gradient would move them, in
// one sweep without a dense gradient (ops/row_adamw.h). Decay on matrices and tables, not on norm gains.
// State is made at a parameter's first step. Not thread-safe.
//
// Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (arXiv:1711.05101).
class AdamW {
 public:
  explicit AdamW(const AdamWConfig& config) : config_(config) {}

  // One step with the peak learning rate times `factor`. A step whose clip found a NaN or an infinity changes
  // nothing.
  void step(const Gradients& gradients, const ClipResult& clip, double factor);

 private:
  struct State {
    at::Tensor exp_avg, exp_avg_sq;
    at::Tensor step;  // [] float32: steps taken by this parameter
  };
  State& state_of(const std::string& name, const at::Tensor& parameter);

  AdamWConfig config_;
  std::map<std::string, State> states_;
};

}  // namespace blt
