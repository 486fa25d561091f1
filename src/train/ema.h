// An exponential moving average of a model's parameters.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "blt/train/optimizer.h"
#include "blt/train/parallel.h"
#include "blt/train/trainer.h"
#include "train/tensor_share.h"

namespace blt {

// Of step t (from 0) the average a of a parameter p becomes d a + (1 - d) p with d = min(decay, (1 + t) / (10 + t)), so that what it started
// with, the parameter, is soon forgotten. Of a parameter with a master it is the master that is averaged: what bfloat16 cannot show adds up. Each
// rank averages what it moves: where the optimizer's state is divided, so are the averages. They are float32, or float64 where the parameter is. In a checkpoint they are the weights of a model directory. Not thread-safe.
class Ema {
 public:
  // Parameters of the model that take gradients are averaged, n-gram tables where the config says so. The last three outlive this.
  Ema(const EmaConfig& config, const torch::nn::Module& model, Parallel& parallel,
      const Optimizer& optimizer);

  // After step `step`. found_inf: of its clip; a step that changed nothing changes no average.
  void step(int64_t step, const at::Tensor& found_inf);

  // Copies of this rank's shares of a model directory's tensors: averages, and the model's own where there is none.
  TensorShares shares(const ModelToSave& model) const;
  // Goes on from a directory made of them; parameters without an average are not touched. Throws blt::Error, naming the file, when it is damaged
  // or of another model.
  void load(const std::filesystem::path& folder, const ModelToSave& model);

  // [the part's elements, or the parameter's shape], by the parameter's name.
  const std::map<std::string, at::Tensor>& averages() const { return averages_; }

 private:
  // What the optimizer moves of a parameter, as it is now; own: of Parallel::own_parameters().
  at::Tensor moved(const std::string& name, const at::Tensor& own) const;
  bool is_averaged(const std::string& name, const at::Tensor& parameter) const;

  EmaConfig config_;
  const torch::nn::Module& model_;
  Parallel& parallel_;
  const Optimizer& optimizer_;
  std::map<std::string, at::Tensor> averages_;
};

}  // namespace blt
