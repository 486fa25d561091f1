// What a model directory will hold, for whoever writes its tensors in another way than save_model() does: several ranks, each its part.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "blt/io/model_dir.h"

namespace blt {

struct ModelContent {
  std::vector<std::pair<std::string, at::Tensor>> tensors =
      {};                   // of model.safetensors: the model's own, not copied
  std::string config = {};  // the text of config.json
};
// What save_model() and save_entropy_model() would write.
ModelContent model_content(const LoadedModel& model);
ModelContent model_content(const EntropyModel& model);

// Of model.safetensors.
const std::map<std::string, std::string>& model_metadata();

}  // namespace blt
