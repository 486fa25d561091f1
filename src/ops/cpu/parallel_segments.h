// Shares segments of uneven length out among threads.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace blt::ops {

// Every segment has `parts` parts (heads, blocks of columns, …) that cost cost(segment) > 0 each; unit
// segment * parts + part is one of them. Calls run(first, last), from several threads, with ranges of units
// that cover all of them once and cost about the same, and no less than `grain` where there are several.
template <class Cost, class Run>
void parallel_over_segments(int64_t segments, int64_t parts, int64_t grain, const Cost& cost,
                            const Run& run) {
  if (segments == 0 || parts == 0) return;
  std::vector<int64_t> starts(segments + 1);
  for (int64_t s = 0; s < segments; ++s) starts[s + 1] = starts[s] + parts * cost(s);
  // The first unit that starts at `at` or later, when units lie end to end, each as long as it costs.
  const auto unit_at = [&](int64_t at) {
    const int64_t segment = std::upper_bound(starts.begin(), starts.end(), at) - starts.begin() - 1;
    if (segment == segments) return segments * parts;
    const int64_t length = (starts[segment + 1] - starts[segment]) / parts;
    return segment * parts + (at - starts[segment] + length - 1) / length;
  };
  at::parallel_for(0, starts[segments], grain,
                   [&](int64_t begin, int64_t end) { run(unit_at(begin), unit_at(end)); });
}

}  // namespace blt::ops
