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

TEST(Schedule, LinearIsAStraightLineAfterTheWarmUp) {
  const ScheduleConfig schedule = LinearSchedule{.warmup = 20, .final_ratio = 0.2};
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 9, 120), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 19, 120), 1.0);
  EXPECT_NEAR(learning_rate_factor(schedule, 69, 120), 0.6, 1e-12);
  EXPECT_NEAR(learning_rate_factor(schedule, 119, 120), 0.2, 1e-12);
}

TEST(Schedule, WsdFallsOnlyAtTheEnd) {
  const ScheduleConfig schedule = WsdSchedule{.warmup = 10, .decay = 0.2, .final_ratio = 0.1};
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 4, 100), 0.5);
  for (int64_t step = 10; step < 80; ++step) EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, step, 100), 1.0);
  EXPECT_NEAR(learning_rate_factor(schedule, 89, 100), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate_factor(schedule, 99, 100), 0.1, 1e-12);
  // The part before the end does not depend on how long the run is.
  EXPECT_EQ(learning_rate_factor(schedule, 70, 100), learning_rate_factor(schedule, 70, 1000));
}

TEST(Schedule, WsdWithoutAStablePartFallsFromTheWarmUpOn) {
  const ScheduleConfig schedule = WsdSchedule{.warmup = 50, .decay = 1.0, .final_ratio = 0.0};
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 49, 100), 1.0);
  EXPECT_NEAR(learning_rate_factor(schedule, 74, 100), 0.5, 1e-12);
  EXPECT_NEAR(learning_rate_factor(schedule, 99, 100), 0.0, 1e-12);
}

}  // namespace
}  // namespace blt
