#include "blt/train/schedule.h"

#include <gtest/gtest.h>

namespace blt {
namespace {

TEST(Schedule, WarmUpRisesFromOneStepToThePeak) {
  const ScheduleConfig schedule = CosineSchedule{.warmup = 4, .final_ratio = 0.1};
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 0, 100), 0.25);
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 3, 100), 1.0);
}

TEST(Schedule, CosineEndsAtItsFinalRatioAndIsHalfWayInTheMiddle) {
  const ScheduleConfig schedule = CosineSchedule{.warmup = 0, .final_ratio = 0.1};
  EXPECT_NEAR(learning_rate_factor(schedule, 99, 100), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate_factor(schedule, 49, 100), 0.55, 1e-12);
}

TEST(Schedule, CosineNeverRisesAfterTheWarmUp) {
  const ScheduleConfig schedule = CosineSchedule{.warmup = 10, .final_ratio = 0.0};
  for (int64_t step = 10; step < 200; ++step)
    EXPECT_LE(learning_rate_factor(schedule, step, 200), learning_rate_factor(schedule, step - 1, 200))
        << step;
}

TEST(Schedule, AWarmUpLongerThanTheRunStaysAWarmUp) {
  const ScheduleConfig schedule = CosineSchedule{.warmup = 1000, .final_ratio = 0.0};
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 9, 10), 0.01);
}

TEST(Schedule, ConstantStaysAtThePeak) {
  const ScheduleConfig schedule = ConstantSchedule{.warmup = 2};
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 0, 10), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 9, 10), 1.0);
}

}  // namespace
}  // namespace blt
