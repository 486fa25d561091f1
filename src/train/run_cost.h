// What a run's models cost.
#pragma once

#include "blt/model/report.h"
#include "blt/train/run_config.h"

namespace blt {

// What the FLOPs of a byte depend on. The patches' mean length is the wanted one, or what English text has by that rule.
CostContext cost_context(const RunConfig& config);

}  // namespace blt
