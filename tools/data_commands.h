// What blt_data can do.
#pragma once

#include "tools/data_options.h"

namespace blt {

int print_stats(const DataOptions& options);
int print_calibration(const DataOptions& options);
// Stops in good order at a signal; what was computed stays, and the next run goes on from there.
int fill_entropy_cache(const DataOptions& options);
int print_batches(const DataOptions& options);

}  // namespace blt
