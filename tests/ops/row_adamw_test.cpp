#include "blt/ops/row_adamw.h"

#include <ATen/Parallel.h>
#include <ATen/ops/_fused_adamw.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "message.h"
#include "ngram_embedding_cases.h"
#include "ops/stochastic_rounding.h"

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

// What a table's moments are kept in.
struct Kept {
  at::ScalarType moments = at::kFloat;
  bool by_row = false;

  std::string name() const { return std::string(c10::toString(moments)) + (by_row ? ", by row" : ""); }
  State of(const State& state) const {
    return {state.table.clone(), state.exp_avg.to(moments, false, /*copy=*/true),
            by_row ? state.exp_avg_sq.mean(1) : state.exp_avg_sq.to(moments, false, /*copy=*/true)};
  }
};
const Kept kKept[] = {{at::kFloat, false}, {at::kFloat, true}, {at::kBFloat16, false}, {at::kBFloat16, true}};

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

// Dense AdamW as a formula, in double; of a second moment for each row, the mean of its squares.
void dense_update(State& state, const at::Tensor& grad, const ops::AdamWStep& s) {
  const bool by_row = state.exp_avg_sq.dim() == 1;
  const at::Tensor squares = by_row ? grad.square().mean(1) : grad.square();
  state.table *= 1 - s.learning_rate * s.weight_decay;
  state.exp_avg = state.exp_avg * s.beta1 + grad * (1 - s.beta1);
  state.exp_avg_sq = state.exp_avg_sq * s.beta2 + squares * (1 - s.beta2);
  const double bias1 = 1 - std::pow(s.beta1, s.step), bias2 = 1 - std::pow(s.beta2, s.step);
  const at::Tensor root = state.exp_avg_sq.sqrt() / std::sqrt(bias2) + s.eps;
  state.table -= s.learning_rate / bias1 * state.exp_avg / (by_row ? root.unsqueeze(1) : root);
}

// Relative to the largest value.
void expect_near(const at::Tensor& got, const at::Tensor& expected, const char* what,
                 double tolerance = 5e-7) {
  const at::Tensor exact = expected.to(at::kDouble);
  EXPECT_LE((got.to(at::kDouble) - exact).abs().max().item<double>(),
            tolerance * exact.abs().max().item<double>())
      << what;
}

struct Sizes {
  int64_t R, C, count;
};

void expect_the_formula(const Kept& kept, uint64_t seed, const std::vector<Sizes>& all) {
  for (const auto& [R, C, count] : all) {
    Rng rng(seed);
    State state = kept.of(random_state(rng, R, C));
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

TEST(RowAdamW, EqualsDenseAdamW) {
  expect_the_formula({at::kFloat, false}, 31, {{50, 20, 13}, {7, 1, 7}, {300, 33, 0}, {64, 256, 1}});
}

TEST(RowAdamW, OfRowMomentsEqualsTheFormula) {
  expect_the_formula({at::kFloat, true}, 61,
                     {{50, 20, 13}, {7, 1, 7}, {300, 33, 0}, {64, 256, 1}, {40, 96, 40}});
}

// The neighbours of float32 numbers in bfloat16: the one nearer to zero, and the one after it.
std::pair<at::Tensor, at::Tensor> bfloat16_neighbours(const at::Tensor& x) {
  const at::Tensor bits = x.contiguous().view(at::kInt);
  const at::Tensor below = bits.bitwise_and(-0x10000);
  return {below.view(at::kFloat), (below + 0x10000).view(at::kFloat)};
}

// A step with bfloat16 moments is the step with float32 ones, and then the moments become one of their neighbours.
TEST(RowAdamW, InBfloat16RoundsWhatFloat32Computes) {
  for (const bool by_row : {false, true})
    for (const bool touched_only : {false, true}) {
      Rng rng(67);
      State narrow = Kept{at::kBFloat16, by_row}.of(random_state(rng, 60, 33));
      State wide = narrow.clone();
      wide.exp_avg = wide.exp_avg.to(at::kFloat);
      wide.exp_avg_sq = wide.exp_avg_sq.to(at::kFloat);
      const RowGradient rows = random_rows(rng, 60, 33, 20);
      ops::AdamWStep step = kStep;
      step.touched_only = touched_only;
      update(narrow, rows, 0.5, step);
      update(wide, rows, 0.5, step);
      EXPECT_TRUE(at::equal(narrow.table, wide.table));
      const auto expect_rounded = [](const at::Tensor& got, const at::Tensor& exact) {
        const auto [below, above] = bfloat16_neighbours(exact);
        const at::Tensor value = got.to(at::kFloat);
        EXPECT_TRUE(((value == below) | ((value == above) & (exact != below))).all().item<bool>());
        const at::Tensor inexact = exact != below;
        if (inexact.sum().item<int64_t>() > 500) {  // both ways
          EXPECT_GT((value == below).index({inexact}).sum().item<int64_t>(), 100);
          EXPECT_GT((value == above).index({inexact}).sum().item<int64_t>(), 100);
        }
      };
      expect_rounded(narrow.exp_avg, wide.exp_avg);
      if (by_row)
        EXPECT_TRUE(at::equal(narrow.exp_avg_sq, wide.exp_avg_sq));
      else
        expect_rounded(narrow.exp_avg_sq, wide.exp_avg_sq);
    }
}

// Decays that bfloat16 does not resolve: 0.999 times a number is the number again when it is rounded to the nearest. With random rounding the mean
// over many elements follows the decay. 2^16 elements of 1 after 200 steps: every step adds a variance of at most (2^-8 / 2)^2.
TEST(RowAdamW, InBfloat16SmallChangesAddUpOnAverage) {
  constexpr int64_t kR = 256, kC = 256;
  constexpr int kSteps = 200;
  State state{at::ones({kR, kC}), at::ones({kR, kC}, at::kBFloat16), at::ones({kR, kC}, at::kBFloat16)};
  at::Tensor nearest = at::ones({}, at::kBFloat16);
  ops::AdamWStep step{.learning_rate = 0, .beta1 = 0.999, .beta2 = 0.9995, .seed = 5};
  for (step.step = 1; step.step <= kSteps; ++step.step) {
    update(state, RowGradient{}, 1.0, step);
    nearest = (nearest.to(at::kFloat) * 0.999).to(at::kBFloat16);
  }
  EXPECT_EQ(nearest.item<float>(), 1);
  const double deviation = std::ldexp(1.0, -9) * std::sqrt(static_cast<double>(kSteps) / (kR * kC));
  for (const auto& [moment, beta] :
       {std::pair(state.exp_avg, step.beta1), std::pair(state.exp_avg_sq, step.beta2)}) {
    const double expected = std::pow(beta, kSteps);
    EXPECT_LT(expected, 1 - 500 * deviation);
    EXPECT_NEAR(moment.to(at::kDouble).mean().item<double>(), expected, 4 * deviation) << beta;
  }
  // Elements that are alike in all but their place part.
  EXPECT_GT(state.exp_avg.to(at::kDouble).std().item<double>(), 0.01);
}

TEST(RowAdamW, InBfloat16TheRandomBitsAreOfSeedAndStep) {
  Rng rng(71);
  const State start = Kept{at::kBFloat16}.of(random_state(rng, 40, 24));
  const auto with = [&](int64_t seed, int64_t step) {
    State state = start.clone();
    ops::AdamWStep settings = kStep;
    settings.seed = seed;
    settings.step = step;
    settings.beta1 = 0.7;
    update(state, RowGradient{}, 1.0, settings);
    return state.exp_avg;
  };
  EXPECT_TRUE(at::equal(with(1, 3), with(1, 3)));
  EXPECT_FALSE(at::equal(with(1, 3), with(2, 3)));
  EXPECT_FALSE(at::equal(with(1, 3), with(1, 4)));
}

// As ranks have them.
TEST(RowAdamW, PartsOfATableGetTheNumbersOfTheWhole) {
  Rng rng(73);
  const State start = random_state(rng, 90, 24);
  const RowGradient rows = random_rows(rng, 90, 24, 30);
  const auto* ids = rows.ids.const_data_ptr<int32_t>();
  for (const Kept& kept : kKept)
    for (const bool touched_only : {false, true}) {
      State whole = kept.of(start);
      State parts = whole.clone();
      ops::AdamWStep step = kStep;
      step.touched_only = touched_only;
      update(whole, rows, 0.5, step);
      for (const auto& [begin, end] : {std::pair(0, 31), {31, 32}, {32, 90}}) {
        const int64_t first = std::lower_bound(ids, ids + 30, begin) - ids,
                      last = std::lower_bound(ids, ids + 30, end) - ids;
        State part{parts.table.slice(0, begin, end), parts.exp_avg.slice(0, begin, end),
                   parts.exp_avg_sq.slice(0, begin, end)};
        step.first_row = begin;
        update(part,
               {rows.ids.slice(0, first, last) - begin, rows.values.slice(0, first, last),
                at::scalar_tensor(last - first, at::kInt), last - first},
               0.5, step);
      }
      EXPECT_TRUE(parts == whole) << kept.name() << (touched_only ? ", lazy" : "");
    }
}

TEST(RowAdamW, TouchesNothingButTheTouchedRowsWhenAsked) {
  for (const Kept& kept : kKept) {
    Rng rng(41);
    const State before = kept.of(random_state(rng, 300, 33));
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
    EXPECT_TRUE(lazy == expected) << kept.name();
  }
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
  for (const Kept& kept : kKept) {
    Rng rng(41);
    State none = kept.of(random_state(rng, 6, 5)), zero = none.clone();
    const State before = none.clone();
    update(none, RowGradient{}, 1.0, kStep);
    update(zero, {at::zeros({1}, at::kInt), at::zeros({1, 5}), at::ones({}, at::kInt), 1}, 1.0, kStep);
    EXPECT_TRUE(none == zero) << kept.name();
    EXPECT_FALSE(none == before) << kept.name();
  }
}

TEST(RowAdamW, AScaleThatIsNotFiniteChangesNothing) {
  for (const Kept& kept : kKept) {
    Rng rng(43);
    State state = kept.of(random_state(rng, 9, 4));
    const State before = state.clone();
    for (const double scale :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
      update(state, random_rows(rng, 9, 4, 3), scale, kStep);
    EXPECT_TRUE(state == before) << kept.name();
  }
}

TEST(RowAdamW, DoesNotDependOnThreadsOrOnRoomToSpare) {
  const int before = at::get_num_threads();
  for (const Kept& kept : kKept) {
    Rng rng(47);
    const State start = kept.of(random_state(rng, 5000, 24));
    RowGradient rows = random_rows(rng, 5000, 24, 700);
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
      EXPECT_TRUE(state == alone) << kept.name() << ", " << threads << " threads";
    }
  }
  at::set_num_threads(before);
}

// What a model computes with, in bfloat16, is the table that moved, rounded as LibTorch rounds; rows that did not move stay.
TEST(RowAdamW, RoundsTheRowsThatMove) {
  for (const Kept& kept : kKept)
    for (const bool touched_only : {false, true})
      for (const int64_t columns : {1, 20, 33}) {
        Rng rng(5);
        const State start = kept.of(random_state(rng, 40, columns));
        const RowGradient rows = random_rows(rng, 40, columns, 11);
        ops::AdamWStep step = kStep;
        step.touched_only = touched_only;
        State plain = start.clone(), state = start.clone();
        update(plain, rows, 0.5, step);
        const at::Tensor before = at::full({40, columns}, 9.0, at::kBFloat16), rounded = before.clone();
        const at::Tensor scale = at::scalar_tensor(0.5);
        ops::row_adamw_(state.table, state.exp_avg, state.exp_avg_sq, rows, scale, step, rounded);
        EXPECT_TRUE(state == plain) << kept.name();
        at::Tensor expected = plain.table.to(at::kBFloat16);
        if (touched_only)
          expected =
              before.index_copy(0, rows.ids.to(at::kLong), expected.index_select(0, rows.ids.to(at::kLong)));
        EXPECT_TRUE(at::equal(rounded, expected)) << kept.name() << (touched_only ? ", lazy" : "");
        // A step that changes nothing rounds nothing.
        rounded.copy_(before);
        ops::row_adamw_(state.table, state.exp_avg, state.exp_avg_sq, rows,
                        at::scalar_tensor(std::numeric_limits<double>::quiet_NaN(), at::kFloat), step,
                        rounded);
        EXPECT_TRUE(at::equal(rounded, before));
      }
}

TEST(RowAdamW, RoundsToTheNearestAsLibTorchDoes) {
  Rng rng(6);
  const at::Tensor bits =
      at::cat({rng.integer({20000}, INT32_MIN, INT32_MAX), at::arange(0x3f7f7f00, 0x3f818100, 0x40, at::kInt),
               at::tensor({0, INT32_MIN, 0x7f7fffff, 0x7f800000, 1, 0x00008000}, at::kInt)});
  const at::Tensor values = bits.view(at::kFloat);
  const at::Tensor expected = values.to(at::kBFloat16).view(at::kShort);
  for (int64_t i = 0; i < values.size(0); ++i) {
    const float value = values.const_data_ptr<float>()[i];
    if (std::isnan(value)) continue;
    ASSERT_EQ(static_cast<int16_t>(ops::nearest_bfloat16(value)), expected.const_data_ptr<int16_t>()[i])
        << value;
  }
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
                 "exp_avg Float [5, 4]");
  const at::Tensor narrow = state.exp_avg.to(at::kBFloat16), by_row = state.exp_avg_sq.mean(1);
  EXPECT_MESSAGE(with({state.table, narrow, state.exp_avg_sq}, rows), "exp_avg_sq Float [6, 4]");
  EXPECT_MESSAGE(with({state.table, narrow, by_row.to(at::kBFloat16)}, rows), "exp_avg_sq BFloat16 [6]");
  EXPECT_MESSAGE(with({state.table, state.exp_avg, by_row.slice(0, 0, 4)}, rows),
                 "may be [6], one number for each row");
  EXPECT_MESSAGE(with({state.table.to(at::kDouble), narrow, narrow}, rows),
                 "of a float32 table, moments may be bfloat16");
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

// 65,536 draws: of a number between two bfloat16 numbers, the outer one as often as the number is near to it.
TEST(StochasticRounding, IsRightOnAverage) {
  constexpr int kRows = 256, kColumns = 256;
  for (const uint32_t inner : {0x3f80u, 0xbf80u, 0x4480u, 0x0001u /* denormal */, 0x0000u})
    for (const uint32_t rest : {0u, 64u, 6554u, 32768u, 58982u, 65472u})
      for (const int shift : {0, 16}) {
        const uint32_t bits = inner << 16 | rest;
        float x = 0;
        std::memcpy(&x, &bits, sizeof(x));
        int64_t outer = 0;
        for (int64_t row = 0; row < kRows; ++row)
          for (uint32_t column = 0; column < kColumns; ++column) {
            const uint32_t noise = ops::noise_at(ops::row_noise(11, row), column) >> shift & 0xffff;
            const uint16_t rounded = ops::round_to_bfloat16(x, noise);
            ASSERT_TRUE(rounded == inner || rounded == inner + 1);
            outer += rounded == inner + 1 ? 1 : 0;
          }
        const double part = rest / 65536.0, draws = kRows * kColumns;
        EXPECT_NEAR(static_cast<double>(outer) / draws, part, 4.5 * std::sqrt(part * (1 - part) / draws))
            << std::hex << bits << " shift " << shift;
      }
}

TEST(StochasticRounding, KeepsWhatIsNoNumberBetweenTwo) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const uint32_t noise : {0u, 1u, 0x8000u, 0xffffu}) {
    for (const float x : {0.f, -0.f, 1.f, -2.5f, kInfinity, -kInfinity}) {
      const float kept = ops::widen_bfloat16(ops::round_to_bfloat16(x, noise));
      EXPECT_EQ(kept, x);
      EXPECT_EQ(std::signbit(kept), std::signbit(x));
    }
    for (const uint32_t bits : {0x7fc00000u, 0x7fffffffu, 0xffffffffu}) {
      float x = 0;
      std::memcpy(&x, &bits, sizeof(x));
      EXPECT_TRUE(std::isnan(ops::widen_bfloat16(ops::round_to_bfloat16(x, noise))));
    }
    EXPECT_TRUE(
        std::isfinite(ops::widen_bfloat16(ops::round_to_bfloat16(std::numeric_limits<float>::max(), noise))));
  }
}

// No neighbour in any direction says anything about a number, nor one half about the other; and each half is uniform.
TEST(StochasticRounding, NoiseIsUniformAndWithoutCorrelation) {
  constexpr int64_t kRows = 512, kColumns = 512;
  const auto halves = [](uint64_t stream, int64_t row, int64_t column) {
    const uint32_t noise = ops::noise_at(ops::row_noise(stream, row), static_cast<uint32_t>(column));
    return std::pair<double, double>((noise & 0xffff) / 65536.0 - 0.5, (noise >> 16) / 65536.0 - 0.5);
  };
  double halves_together = 0;
  std::vector<double> next_column(2), next_row(2), next_stream(2), mean(2);
  std::vector<std::vector<int64_t>> counts(2, std::vector<int64_t>(256));
  for (int64_t row = 0; row < kRows; ++row)
    for (int64_t column = 0; column < kColumns; ++column) {
      const auto own = halves(3, row, column), right = halves(3, row, column + 1),
                 below = halves(3, row + 1, column), later = halves(4, row, column);
      halves_together += own.first * own.second;
      for (size_t half = 0; half < 2; ++half) {
        const auto of = [&](const std::pair<double, double>& x) { return half == 0 ? x.first : x.second; };
        mean[half] += of(own);
        next_column[half] += of(own) * of(right);
        next_row[half] += of(own) * of(below);
        next_stream[half] += of(own) * of(later);
        ++counts[half][static_cast<size_t>((of(own) + 0.5) * 256)];
      }
    }
  const double n = kRows * kColumns,
               most = 4.5 * std::sqrt(n) / 12;  // products of two uniform numbers deviate by 1/12
  EXPECT_LE(std::abs(halves_together), most);
  for (size_t half = 0; half < 2; ++half) {
    EXPECT_LE(std::abs(mean[half]), 4.5 * std::sqrt(n / 12)) << half;
    EXPECT_LE(std::abs(next_column[half]), most) << half;
    EXPECT_LE(std::abs(next_row[half]), most) << half;
    EXPECT_LE(std::abs(next_stream[half]), most) << half;
    double chi_square = 0;  // 255 degrees of freedom: mean 255, deviation 22.6
    for (const int64_t count : counts[half])
      chi_square += std::pow(static_cast<double>(count) - n / 256, 2) / (n / 256);
    EXPECT_NEAR(chi_square, 255, 4.5 * 22.6) << half;
  }
}

}  // namespace
}  // namespace blt
