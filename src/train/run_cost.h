// What a run's models cost.
#pragma once

#include <functional>
#include <string>

#include "blt/model/report.h"
#include "blt/train/run_config.h"
#include "blt/train/trainer.h"

namespace blt {

// What the FLOPs of a byte depend on. The patches' mean length is the wanted one, or what English text has by that rule.
CostContext cost_context(const RunConfig& config);

// The config's models on the meta device: shapes without memory.
struct ModelShapes {
  Blt blt{nullptr};
  EntropyModel entropy_model{nullptr};
  std::string note =
      {};  // where the directory of the entropy model is not there (yet), a line that says so; else empty
};
ModelShapes model_shapes(const RunConfig& config);

// The FLOPs of training on some text, forward and backward: of its own mean lengths of patches and sequences where it says how many there are, else
// of the context's.
std::function<double(const TextCounts&)> training_flops(const BltConfig& config, CostContext context);
std::function<double(const TextCounts&)> training_flops(const EntropyModelConfig& config,
                                                        CostContext context);

}  // namespace blt
