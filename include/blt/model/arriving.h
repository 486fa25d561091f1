// Parameters that may still be on their way when a forward pass begins.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace blt {

// A module with parameters of its own. Who trains on several ranks lets what a step moved travel while the next forward pass computes
// (train/moved_parameters.h): each module waits for its own parameters, right before it reads them. Who reads
// one elsewhere asks for there(parameter), or for all of them by Parallel::make_whole() (blt/train/parallel.h).
class Arriving {
 public:
  virtual ~Arriving() = default;

  std::function<void()> arrive;  // returns when the module's parameters are there; empty: they are

  // `parameter`, to be read. One of this module's.
  const at::Tensor& there(const at::Tensor& parameter) const {
    if (arrive) arrive();
    return parameter;
  }
};

}  // namespace blt
