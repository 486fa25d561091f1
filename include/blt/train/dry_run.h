// Whether a run fits, before there is a machine for it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "blt/train/run_config.h"

namespace blt {

// The machines that a run is planned for. What is not given is not assumed either.
struct PlannedMachines {
  int64_t world = 1;                      // ranks
  std::optional<double> memory_gib = {};  // that a rank has
  std::optional<double> tflops =
      {};  // that a rank reaches in products, in 10^12 FLOP/s: measured, not a data sheet's
  std::optional<double> bandwidth_gbps =
      {};  // at which a rank receives, and sends, from all others, in 10^9 bits/s: measured, too
};

struct DryRun {
  std::string page;       // for a reader
  double step_bytes = 0;  // the most memory of a rank in a step
  double most_bytes =
      0;  // at any time: while the model is built, in a step with a checkpoint being written, in the end
  double traffic_bytes = 0;  // that a rank receives in a step
  bool fits = true;          // most_bytes in memory_gib; true where that is not given
};

// Memory of each rank by kind, traffic of a step, and how long one takes, for the config's sharding. Nothing is allocated: models are built
// on the meta device, and a step is taken there. Counted are tensors of the training: parameters, gradients, optimizer, activations, and the
// entropy model's weights. Not counted: what kernels use inside themselves, batches that wait, entropies while they are computed, the
// process itself (LibTorch: about 200 MiB). Throws blt::Error when there is no model in the config.
DryRun dry_run(const RunConfig& config, const PlannedMachines& machines);

}  // namespace blt
