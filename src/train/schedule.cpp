#include "blt/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace blt {
namespace {

double factor(const CosineSchedule& schedule, int64_t step, int64_t steps) {
  const auto span = static_cast<double>(std::max<int64_t>(steps - schedule.warmup, 1));
  const double progress = std::min(1.0, static_cast<double>(step + 1 - schedule.warmup) / span);
  return schedule.final_ratio +
         (1.0 - schedule.final_ratio) * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

double factor(const ConstantSchedule&, int64_t, int64_t) { return 1.0; }

}  // namespace

double learning_rate_factor(const ScheduleConfig& schedule, int64_t step, int64_t steps) {
  return std::visit(
      [&](const auto& kind) {
        if (step < kind.warmup) return static_cast<double>(step + 1) / static_cast<double>(kind.warmup);
        return factor(kind, step, steps);
      },
      schedule);
}

}  // namespace blt
