// The names of modules in profiles.
#pragma once

#include <torch/nn/module.h>

#include <string>

namespace blt {

// A module whose forward is a range of its own in profiles (`blt_train --profile`), once it has a name.
class Traced {
 public:
  virtual ~Traced() = default;

  std::string trace_name;  // empty: it does not show
};

// Names the modules below `model` as their parameters are named: latent_transformer.layers.3.
void name_traced(torch::nn::Module& model);

}  // namespace blt
