// An exponential moving average of a model's parameters.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "blt/train/trainer.h"

namespace blt {

// The averages are the parameters of a second module with the same names, in float32; its parameters that are not averaged are the model's own,
// the same memory. It starts as a copy. Of step t (from 0) the average a of a parameter p becomes d a + (1 - d) p with
// d = min(decay, (1 + t) / (10 + t)), so that what it started with is soon forgotten. Not thread-safe.
class Ema {
 public:
  // average: at this rank; it must outlive this. Parameters of the model that take gradients are averaged, n-gram tables where the config
  // says so.
  Ema(const EmaConfig& config, const torch::nn::Module& model, torch::nn::Module& average);
  // After step `step`. found_inf: of its clip; a step that changed nothing changes no average.
  void step(int64_t step, const at::Tensor& found_inf);

 private:
  double decay_;
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs_;  // a parameter and its average
};

}  // namespace blt
