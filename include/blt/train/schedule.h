// The learning rate of every step.
#pragma once

#include <cstdint>
#include <string_view>
#include <variant>

#include "blt/base/config.h"

namespace blt {

// Linear from 0 over `warmup` steps, then half a cosine down to `final_ratio` of the peak at the last step
// (section 4.3 of the paper uses 2000 and 0).
struct CosineSchedule {
  static constexpr std::string_view kKind = "cosine";
  int64_t warmup = 2000;
  double final_ratio = 0.0;
  static void fields(auto& self, auto&& field) {
    field("warmup", self.warmup, "Steps over which the learning rate rises from 0 to its peak.", at_least(0));
    field("final_ratio", self.final_ratio, "Learning rate at the last step over its peak.", between(0, 1));
  }
};

// Linear from 0 over `warmup` steps, then constant.
struct ConstantSchedule {
  static constexpr std::string_view kKind = "constant";
  int64_t warmup = 0;
  static void fields(auto& self, auto&& field) {
    field("warmup", self.warmup, "Steps over which the learning rate rises from 0 to its peak.", at_least(0));
  }
};

// Linear from 0 over `warmup` steps, then a straight line down to `final_ratio` of the peak at the last step.
struct LinearSchedule {
  static constexpr std::string_view kKind = "linear";
  int64_t warmup = 2000;
  double final_ratio = 0.0;
  static void fields(auto& self, auto&& field) {
    field("warmup", self.warmup, "Steps over which the learning rate rises from 0 to its peak.", at_least(0));
    field("final_ratio", self.final_ratio, "Learning rate at the last step over its peak.", between(0, 1));
  }
};

// Warm-up, stable, decay: constant at the peak until the last `decay` share of the steps, then a straight line down to `final_ratio` of
// the peak. A run can be lengthened from a checkpoint of its stable part.
//
// Source: Hu et al., MiniCPM (arXiv:2404.06395), section 4.
struct WsdSchedule {
  static constexpr std::string_view kKind = "wsd";
  int64_t warmup = 2000;
  double decay = 0.1;
  double final_ratio = 0.0;
  static void fields(auto& self, auto&& field) {
    field("warmup", self.warmup, "Steps over which the learning rate rises from 0 to its peak.", at_least(0));
    field("decay", self.decay, "Share of all steps, at the end, over which the learning rate falls.",
          between(0, 1));
    field("final_ratio", self.final_ratio, "Learning rate at the last step over its peak.", between(0, 1));
  }
};

using ScheduleConfig = std::variant<CosineSchedule, ConstantSchedule, LinearSchedule, WsdSchedule>;

// What the peak learning rate is multiplied by in step `step` (0 to steps - 1). The first step of a warm-up
// of W moves by 1 / W: no step is wasted on a learning rate of 0.
double learning_rate_factor(const ScheduleConfig& schedule, int64_t step, int64_t steps);

}  // namespace blt
