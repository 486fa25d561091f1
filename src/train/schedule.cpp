#include "blt/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace blt {
namespace {

// How much of the way from step `start` to the last one is gone after `step`: 1 there.
double progress(int64_t start, int64_t step, int64_t steps) {
  const auto span = static_cast<double>(std::max<int64_t>(steps - start, 1));
  return std::clamp(static_cast<double>(step + 1 - start) / span, 0.0, 1.0);
}

double line(double final_ratio, double progress) { return 1.0 - (1.0 - final_ratio) * progress; }

double factor(const CosineSchedule& schedule, int64_t step, int64_t steps) {
  return schedule.final_ratio +
         (1.0 - schedule.final_ratio) * 0.5 *
             (1.0 + std::cos(std::numbers::pi * progress(schedule.warmup, step, steps)));
}

double factor(const LinearSchedule& schedule, int64_t step, int64_t steps) {
  return line(schedule.final_ratio, progress(schedule.warmup, step, steps));
}

double factor(const WsdSchedule& schedule, int64_t step, int64_t steps) {
  const auto decay = std::llround(schedule.decay * static_cast<double>(steps));
  if (step < steps - decay) return 1.0;
  return line(schedule.final_ratio, progress(std::max<int64_t>(steps - decay, schedule.warmup), step, steps));
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
