#include "blt/ops/row_adamw.h"

#include <ATen/Parallel.h>
#include <ATen/ops/_fused_adamw.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "message.h"
#include "ngram_embedding_cases.h"

namespace blt {
namespace {

struct State {
  at::Tensor table, exp_avg, exp_avg_sq;

  State clone() const { return {table.clone(), exp_avg.clone(), exp_avg_sq.clone()}; }
  bool operator==(const State& other) const {
    return at::equal(table, other.table) && at::equal(exp_avg, other.exp_avg) &&
           at::equal(exp_avg_sq, other.exp_avg_sq);
  }
};

State random_state(Rng& rng, int64_t R, int64_t C) {
  return {rng.normal({R, C}).to(at::kFloat), rng.normal({R, C}).to(at::kFloat) * 0.1,
          rng.uniform({R, C}).to(at::kFloat) * 0.01};
}

RowGradient random_rows(Rng& rng, int64_t R, int64_t C, int64_t count) {
  const at::Tensor ids = at::randperm(R).slice(0, 0, count).msort().to(at::kInt);
  return {ids, rng.normal({count, C}).to(at::kFloat), at::scalar_tensor(count, at::kInt), count};
}

void update(State& state, const RowGradient& rows, double scale, const ops::AdamWStep& step) {
  ops::row_adamw_(state.table, state.exp_avg, state.exp_avg_sq, rows,
                  at::scalar_tensor(scale, state.table.scalar_type()), step);
}

const ops::AdamWStep kStep{
    .learning_rate = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1, .step = 3};

// Dense AdamW, in double.
void dense_update(State& state, const at::Tensor& grad, const ops::AdamWStep& s) {
  state.table *= 1 - s.learning_rate * s.weight_decay;
  state.exp_avg = state.exp_avg * s.beta1 + grad * (1 - s.beta1);
  state.exp_avg_sq = state.exp_avg_sq * s.beta2 + grad.square() * (1 - s.beta2);
  const double bias1 = 1 - std::pow(s.beta1, s.step), bias2 = 1 - std::pow(s.beta2, s.step);
  state.table -=
      s.learning_rate / bias1 * state.exp_avg / (state.exp_avg_sq.sqrt() / std::sqrt(bias2) + s.eps);
}

// Relative to the largest value.
void expect_near(const at::Tensor& got, const at::Tensor& expected, const char* what,
                 double tolerance = 5e-7) {
  const at::Tensor exact = expected.to(at::kDouble);
  EXPECT_LE((got.to(at::kDouble) - exact).abs().max().item<double>(),
            tolerance * exact.abs().max().item<double>())
      << what;
}

TEST(RowAdamW, EqualsDenseAdamW) {
  for (const auto& [R, C, count] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
           {50, 20, 13}, {7, 1, 7}, {300, 33, 0}, {64, 256, 1}}) {
    Rng rng(31);
    State state = random_state(rng, R, C);
    State exact{state.table.to(at::kDouble), state.exp_avg.to(at::kDouble), state.exp_avg_sq.to(at::kDouble)};
    State wide = exact.clone();
    ops::AdamWStep step = kStep;
    for (; step.step < 8; ++step.step) {  // several, so that errors would add up
      const RowGradient rows = random_rows(rng, R, C, count);
      update(state, rows, 0.5, step);
      update(wide, rows, 0.5, step);  // a float64 table
      dense_update(exact, dense_rows(rows, R, C).to(at::kDouble) * 0.5, step);
    }
    expect_near(state.table, exact.table, "table");
    expect_near(state.exp_avg, exact.exp_avg, "exp_avg");
    expect_near(state.exp_avg_sq, exact.exp_avg_sq, "exp_avg_sq");
    expect_near(wide.table, exact.table, "float64 table", 1e-14);
    expect_near(wide.exp_avg, exact.exp_avg, "float64 exp_avg", 1e-14);
    expect_near(wide.exp_avg_sq, exact.exp_avg_sq, "float64 exp_avg_sq", 1e-14);
  }
}

TEST(RowAdamW, TouchesNothingButTheTouchedRowsWhenAsked) {
  Rng rng(41);
  const State before = random_state(rng, 300, 33);
  const RowGradient rows = random_rows(rng, 300, 33, 20);
  State exact = before.clone(), lazy = before.clone();
  ops::AdamWStep step = kStep;
  update(exact, rows, 0.5, step);
  step.touched_only = true;
  update(lazy, rows, 0.5, step);
  State expected = before.clone();
  for (const auto& [to, from] :
       {std::pair(expected.table, exact.table), std::pair(expected.exp_avg, exact.exp_avg),
        std::pair(expected.exp_avg_sq, exact.exp_avg_sq)})
    to.index_copy_(0, rows.ids.to(at::kLong), from.index_select(0, rows.ids));
  EXPECT_TRUE(lazy == expected);
}

TEST(RowAdamW, EqualsLibTorchsFusedAdamW) {
  Rng rng(37);
  State state = random_state(rng, 40, 48), fused = state.clone();
  const RowGradient rows = random_rows(rng, 40, 48, 9);
  update(state, rows, 1.0, kStep);
  at::_fused_adamw_({fused.table}, {dense_rows(rows, 40, 48)}, {fused.exp_avg}, {fused.exp_avg_sq}, {},
                    {at::scalar_tensor(kStep.step, at::kFloat)}, kStep.learning_rate, kStep.beta1,
                    kStep.beta2, kStep.weight_decay, kStep.eps, /*amsgrad=*/false, /*maximize=*/false);
  expect_near(state.table, fused.table, "table");
  expect_near(state.exp_avg, fused.exp_avg, "exp_avg");
  expect_near(state.exp_avg_sq, fused.exp_avg_sq, "exp_avg_sq");
}

TEST(RowAdamW, TheStepMayBeKnownToTheDeviceAlone) {
  for (const int64_t taken : {0, 1, 7}) {  // 0: a first step that is masked
    Rng rng(59);
    State by_host = random_state(rng, 30, 12), by_device = by_host.clone();
    const RowGradient rows = random_rows(rng, 30, 12, 5);
    ops::AdamWStep step = kStep;
    step.step = std::max<int64_t>(1, taken);
    update(by_host, rows, 0.5, step);
    step.step = 1000;  // does not count
    step.step_on_device = at::scalar_tensor(taken, at::kFloat);
    update(by_device, rows, 0.5, step);
    EXPECT_TRUE(by_host == by_device) << taken;
  }
}

TEST(RowAdamW, NothingTouchedStillDecays) {
  Rng rng(41);
  State none = random_state(rng, 6, 5), zero = none.clone();
  update(none, RowGradient{}, 1.0, kStep);
  update(zero, {at::zeros({1}, at::kInt), at::zeros({1, 5}), at::ones({}, at::kInt), 1}, 1.0, kStep);
  EXPECT_TRUE(none == zero);
}

TEST(RowAdamW, AScaleThatIsNotFiniteChangesNothing) {
  Rng rng(43);
  State state = random_state(rng, 9, 4);
  const State before = state.clone();
  for (const double scale :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    update(state, random_rows(rng, 9, 4, 3), scale, kStep);
  EXPECT_TRUE(state == before);
}

TEST(RowAdamW, DoesNotDependOnThreadsOrOnRoomToSpare) {
  Rng rng(47);
  const State start = random_state(rng, 5000, 24);
  RowGradient rows = random_rows(rng, 5000, 24, 700);
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  State alone = start.clone();
  update(alone, rows, 0.7, kStep);
  rows.ids = at::cat({rows.ids, at::full({3}, -5, at::kInt)});
  rows.values = at::cat({rows.values, at::full({3, 24}, 1e30)});
  rows.capacity += 3;
  for (const int threads : {2, 5}) {
    at::set_num_threads(threads);
    State state = start.clone();
    update(state, rows, 0.7, kStep);
    EXPECT_TRUE(state == alone) << threads;
  }
  at::set_num_threads(before);
}

TEST(RowAdamW, RefusesWhatDoesNotFit) {
  Rng rng(53);
  State state = random_state(rng, 6, 4);
  const RowGradient rows = random_rows(rng, 6, 4, 2);
  const auto with = [&](State s, const RowGradient& gradient, int64_t step = 1) {
    ops::AdamWStep settings = kStep;
    settings.step = step;
    update(s, gradient, 1.0, settings);
  };
  EXPECT_MESSAGE(with({state.table.to(at::kDouble), state.exp_avg, state.exp_avg_sq}, rows),
                 "must be contiguous float32");
  EXPECT_MESSAGE(with({state.table, state.exp_avg.slice(0, 0, 5), state.exp_avg_sq}, rows),
                 "[6, 4], got Float [5, 4]");
  EXPECT_MESSAGE(with(state, {rows.ids, rows.values.slice(1, 0, 3), rows.count, 2}),
                 "values must be floating [2, 4], got Float [2, 3]");
  EXPECT_MESSAGE(with(state, {rows.ids + 5, rows.values, rows.count, 2}), "ids must increase within [0, 6)");
  EXPECT_MESSAGE(with(state, {rows.ids.flip(0), rows.values, rows.count, 2}),
                 "ids must increase within [0, 6)");
  EXPECT_MESSAGE(with(state, {rows.ids.to(at::kLong), rows.values, rows.count, 2}),
                 "ids must be [capacity] int32");
  EXPECT_MESSAGE(with(state, rows, 0), "steps count from 1, got 0");
  ops::AdamWStep step = kStep;
  step.step_on_device = at::ones({}, at::kLong);
  EXPECT_MESSAGE(update(state, rows, 1.0, step), "step must be one float32, got Long");
}

}  // namespace
}  // namespace blt
