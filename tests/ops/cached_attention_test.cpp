#include "blt/ops/cached_attention.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "blt/ops/window_attention.h"
#include "message.h"
#include "op_case.h"

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
                 "floating [n, 1, 4] on the CPU, got Float [1, 2, 4]");
  EXPECT_MESSAGE(cache.append(row, at::ones({2, 1, 4})), "and Float [2, 1, 4]");
  cache.append(row, row);
  EXPECT_MESSAGE(cache.append(row.to(at::kDouble), row.to(at::kDouble)), "KeyCache: holds Float, got Double");
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

}  // namespace
}  // namespace blt
