#include "blt/ops/cached_attention.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "blt/ops/window_attention.h"
#include "cached_attention_cases.h"
#include "everywhere.h"
#include "message.h"
#include "op_tests.h"
#include "ops/cached_attention/cuda_spans.h"

// Windows about whole spans of keys, widths of every number of lanes, groups of heads, and rings that have gone round.
BLT_OP_TESTS(CachedAttention, cached_attention_case({0}, 2, 2, 8, 0),
             cached_attention_case({200}, 2, 1, 20, 1), cached_attention_case({127}, 2, 2, 64, 0),
             cached_attention_case({128}, 3, 1, 33, 0), cached_attention_case({700}, 4, 2, 40, 130),
             cached_attention_case({511}, 1, 1, 128, 512), cached_attention_case({300}, 6, 1, 100, 0),
             cached_attention_case({2100}, 2, 2, 16, 0),
             cached_attention_case({5, 700, 0, 128, 129}, 4, 2, 24, 257),
             cached_attention_case({}, 2, 1, 8, 3),
             cached_attention_case(std::vector<int64_t>(70, 3), 2, 2, 16, 2));

namespace blt {
namespace {

struct Shape {
  int64_t heads, kv_heads, width, window;
};

struct Rows {
  at::Tensor q, k, v;  // [T, H, E], [T, Hkv, E]

  Rows(Rng& rng, int64_t length, const Shape& shape, at::ScalarType dtype)
      : q(rng.normal({length, shape.heads, shape.width}).to(dtype)),
        k(rng.normal({length, shape.kv_heads, shape.width}).to(dtype)),
        v(rng.normal({length, shape.kv_heads, shape.width}).to(dtype)) {}

  at::Tensor attention(int64_t window) const {
    return ops::window_attention(q, k, v, Segments::from_lengths({q.size(0)}), window, 0.3);
  }
};

ops::KeyCache cache_of(const Shape& shape) { return {shape.kv_heads, shape.width, shape.window}; }

const std::vector<Shape> kShapes = {{2, 2, 16, 0},   {2, 1, 6, 1},    {4, 2, 24, 2},     {2, 2, 64, 127},
                                    {2, 2, 16, 128}, {1, 1, 40, 129}, {6, 3, 32, 130},   {3, 1, 33, 200},
                                    {2, 2, 8, 256},  {1, 1, 16, 257}, {2, 2, 16, 100000}};

// Row by row from the first, and row by row after rows that came at once: to the bit what the whole gives. Patches
// rest on this.
TEST(CachedAttention, IsThatOfTheWholeSequenceBitForBit) {
  constexpr int64_t kLength = 700;
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16})
    for (const Shape& shape : kShapes) {
      Rng rng(31);
      const Rows rows(rng, kLength, shape, dtype);
      const at::Tensor expected = rows.attention(shape.window);
      for (const int64_t at_once : {0, 1, 127, 300}) {
        ops::KeyCache cache = cache_of(shape);
        cache.append(rows.k.slice(0, 0, at_once / 2), rows.v.slice(0, 0, at_once / 2));
        cache.append(rows.k.slice(0, at_once / 2, at_once), rows.v.slice(0, at_once / 2, at_once));
        for (int64_t i = at_once; i < kLength; ++i) {
          const at::Tensor seen = ops::cached_attention(rows.q.slice(0, i, i + 1), rows.k.slice(0, i, i + 1),
                                                        rows.v.slice(0, i, i + 1), {&cache}, 0.3);
          ASSERT_TRUE(at::equal(seen, expected.slice(0, i, i + 1)))
              << dtype << ", window " << shape.window << ", width " << shape.width << ", " << at_once
              << " rows at once: row " << i;
        }
        EXPECT_EQ(cache.length(), kLength);
      }
    }
}

// Sequences at different places, by any number of threads, as each alone.
TEST(CachedAttention, SequencesDoNotSeeEachOther) {
  const int threads = at::get_num_threads();
  for (const Shape& shape : kShapes) {
    Rng rng(32);
    const std::vector<int64_t> lengths = {1, 130, 300, 12};
    std::vector<Rows> rows;
    std::vector<ops::KeyCache> caches;
    std::vector<at::Tensor> q, k, v, expected;
    for (const int64_t length : lengths) {
      rows.emplace_back(rng, length, shape, at::kFloat);
      const Rows& own = rows.back();
      caches.push_back(cache_of(shape));
      caches.back().append(own.k.slice(0, 0, length - 1), own.v.slice(0, 0, length - 1));
      q.push_back(own.q.slice(0, length - 1));
      k.push_back(own.k.slice(0, length - 1));
      v.push_back(own.v.slice(0, length - 1));
      expected.push_back(own.attention(shape.window).slice(0, length - 1));
    }
    at::set_num_threads(shape.window % 2 == 0 ? 2 : 1);
    const at::Tensor seen = ops::cached_attention(at::cat(q), at::cat(k), at::cat(v),
                                                  {&caches[0], &caches[1], &caches[2], &caches[3]}, 0.3);
    at::set_num_threads(threads);
    EXPECT_TRUE(at::equal(seen, at::cat(expected))) << "window " << shape.window;
  }
}

// Bit for bit, on every device: row by row up to a place, and there beside others.
BLT_TEST_EVERYWHERE(CachedAttention, ARowDoesNotDependOnTheOtherSequences) {
  constexpr double kScale = 0.3;
  for (const at::ScalarType dtype : where.dtypes())
    for (const Shape& shape : {Shape{2, 1, 24, 0}, Shape{2, 2, 16, 100}}) {
      Rng rng(34);
      std::vector<int64_t> lengths = {1, 130, 300, 12};
      lengths.resize(70, 2);
      const int64_t total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
      const auto rows = [&](int64_t count, int64_t heads) {
        return rng.normal({count, heads, shape.width}).to(where.device(), dtype);
      };
      const auto count = static_cast<int64_t>(lengths.size());
      const at::Tensor old_k = rows(total, shape.kv_heads), old_v = rows(total, shape.kv_heads),
                       q = rows(count, shape.heads), k = rows(count, shape.kv_heads),
                       v = rows(count, shape.kv_heads);
      std::vector<ops::KeyCache> caches = filled_caches(old_k, old_v, lengths, shape.window);
      const at::Tensor together = attend_in(caches, q, k, v, kScale);
      int64_t first = 0;
      for (int64_t i = 0; i < 5; first += lengths[i++]) {
        ops::KeyCache alone = cache_of(shape);
        for (int64_t row = 0; row < lengths[i]; ++row)
          alone.append(old_k.narrow(0, first + row, 1), old_v.narrow(0, first + row, 1));
        EXPECT_TRUE(at::equal(
            ops::cached_attention(q.narrow(0, i, 1), k.narrow(0, i, 1), v.narrow(0, i, 1), {&alone}, kScale),
            together.narrow(0, i, 1)))
            << dtype << ", sequence " << i << ", window " << shape.window;
      }
    }
}

// Rows are put where later ones find them, by append and by cached_attention, while memory grows and rings go round.
BLT_TEST_EVERYWHERE(CachedAttention, SeesWhatStepsBeforeItPutIntoTheCache) {
  constexpr int64_t kLength = 420;
  for (const at::ScalarType dtype : where.dtypes())
    for (const Shape& shape : {Shape{2, 1, 20, 0}, Shape{2, 2, 16, 130}}) {
      Rng rng(35);
      const auto rows = [&](int64_t heads) {
        return rng.normal({kLength, heads, shape.width}).to(where.device(), dtype);
      };
      const at::Tensor q = rows(shape.heads), k = rows(shape.kv_heads), v = rows(shape.kv_heads);
      ops::KeyCache cache = cache_of(shape);
      for (int64_t i = 0; i < kLength; ++i) {
        const auto at_row = [i](const at::Tensor& x) { return x.narrow(0, i, 1); };
        if (i % 128 > 2 && i % 130 > 2 && i + 2 < kLength) {
          cache.append(at_row(k), at_row(v));
          continue;
        }
        const at::Tensor seen = ops::cached_attention(at_row(q), at_row(k), at_row(v), {&cache}, 0.3);
        const int64_t first = shape.window > 0 ? std::max<int64_t>(0, i + 1 - shape.window) : 0;
        const auto exact = [](const at::Tensor& x) { return x.to(at::kCPU, at::kDouble); };
        const at::Tensor expected = attend_to_all(exact(at_row(q)), exact(k.slice(0, first, i + 1)),
                                                  exact(v.slice(0, first, i + 1)), 0.3);
        const double tolerance = dtype == at::kBFloat16 ? 1e-2 : dtype == at::kHalf ? 2e-3 : 1e-5;
        EXPECT_LE((exact(seen) - expected).abs().max().item<double>(), tolerance)
            << dtype << ", window " << shape.window << ", row " << i;
      }
      EXPECT_EQ(cache.length(), kLength);
    }
}

// Every key that is seen is in one span, in order, and where the ring has it; none wraps around.
TEST(CachedAttention, SpansOnCudaHaveEveryKeyOnce) {
  using namespace ops::BLT_DEVICE;
  for (const int64_t window : {0, 1, 2, 127, 128, 129, 130, 300, 512})
    for (const int64_t capacity : {128, 256, 640, 768, 1024}) {
      for (int64_t position = 0; position < 1100; ++position) {
        const int64_t first = window > 0 ? std::max<int64_t>(0, position + 1 - window) : 0;
        if (position + 1 - first > capacity) continue;
        int64_t next = first;
        for (int64_t s = 0; s < count_spans(position, window); ++s) {
          const Span span = span_of(position, window, capacity, s);
          ASSERT_EQ(span.first, next);
          ASSERT_LT(span.first, span.last);
          ASSERT_EQ(span.first / kSpan, (span.last - 1) / kSpan);
          ASSERT_EQ(span.slot, span.first % capacity);
          ASSERT_LE(span.slot + span.last - span.first, capacity);
          next = span.last;
        }
        ASSERT_EQ(next, position + 1) << "window " << window;
      }
    }
  EXPECT_EQ(count_spans(0, 512), 1);
  EXPECT_EQ(count_spans(511, 512), 4);
  EXPECT_EQ(count_spans(512, 512), 5);
}

TEST(CachedAttention, AClearedCacheIsAsNew) {
  const Shape shape{2, 1, 16, 40};
  Rng rng(33);
  const Rows first(rng, 333, shape, at::kFloat), second(rng, 20, shape, at::kFloat);
  ops::KeyCache cache = cache_of(shape);
  cache.append(first.k, first.v);
  cache.clear();
  EXPECT_EQ(cache.length(), 0);
  cache.append(second.k.slice(0, 0, 19), second.v.slice(0, 0, 19));
  EXPECT_TRUE(at::equal(ops::cached_attention(second.q.slice(0, 19), second.k.slice(0, 19),
                                              second.v.slice(0, 19), {&cache}, 0.3),
                        second.attention(shape.window).slice(0, 19)));
}

TEST(CachedAttention, RefusesWhatDoesNotFit) {
  EXPECT_MESSAGE(ops::KeyCache(0, 4, 3), "KeyCache: 0 heads of width 4 with a window of 3");
  EXPECT_MESSAGE(ops::KeyCache(1, 4, -1), "with a window of -1");
  ops::KeyCache cache(1, 4, 3), other(1, 4, 5), wide(1, 6, 3);
  const at::Tensor row = at::ones({1, 1, 4});
  EXPECT_MESSAGE(cache.append(at::ones({1, 2, 4}), at::ones({1, 2, 4})),
                 "floating [n, 1, 4] on one device, got Float [1, 2, 4]");
  EXPECT_MESSAGE(cache.append(row, at::ones({2, 1, 4})), "and Float [2, 1, 4]");
  EXPECT_MESSAGE(cache.append(row, row.to(at::kMeta)), "on cpu and Float [1, 1, 4] on meta");
  cache.append(row, row);
  for (const at::ScalarType type : {at::kDouble, at::kHalf})
    EXPECT_MESSAGE(cache.append(row.to(type), row.to(type)), "KeyCache: holds Float on cpu, got");
  EXPECT_MESSAGE(cache.append(row.to(at::kMeta), row.to(at::kMeta)), "holds Float on cpu, got Float on meta");
  EXPECT_MESSAGE(ops::cached_attention(row, row, row, {&cache, &other}, 1),
                 "for N = 2 caches, got [1, 1, 4]");
  const at::Tensor two = at::ones({2, 1, 4});
  EXPECT_MESSAGE(ops::cached_attention(two, two, two, {&cache, &other}, 1),
                 "and window 5 does not go with k");
  EXPECT_MESSAGE(ops::cached_attention(two, two, two, {&cache, &cache}, 1), "cache 1 is given twice");
  EXPECT_MESSAGE(ops::cached_attention(row, row, row, {&wide}, 1), "1 heads of width 6");
  EXPECT_MESSAGE(ops::cached_attention(at::ones({1, 3, 4}), row, at::ones({1, 2, 4}), {&cache}, 1),
                 "with Hkv a divisor of H");
  EXPECT_MESSAGE(ops::cached_attention(at::ones({1, 1, 4}).requires_grad_(), row, row, {&cache}, 1),
                 "caches are for inference");
  EXPECT_EQ(cache.length(), 1);
}

TEST(CachedAttention, EmulatedRefusesWhatDoesNotFit) {
  const at::Tensor row = at::ones({1, 1, 4}), wide = at::ones({1, 1, 136});
  ops::KeyCache of_the_cpu(1, 4, 3), fresh(1, 4, 3), too_wide(1, 136, 3);
  of_the_cpu.append(row, row);
  const emulation::EmulatedCuda cuda;
  EXPECT_MESSAGE(of_the_cpu.append(row, row), "are no cache of rows Float [1, 1, 4]");
  EXPECT_MESSAGE(fresh.append(row.to(at::kDouble), row.to(at::kDouble)),
                 "float32, float16 or bfloat16, got Double");
  EXPECT_MESSAGE(ops::cached_attention(wide, wide, wide, {&too_wide}, 1),
                 "heads are at most 128 wide, got 136");
  EXPECT_EQ(cuda.launches(), 0);
}

}  // namespace
}  // namespace blt
