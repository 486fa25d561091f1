#include "blt/ops/segment_attention.h"

#include <gtest/gtest.h>

#include "message.h"
#include "op_tests.h"
#include "segment_attention_cases.h"

BLT_OP_TESTS(SegmentAttention, encoder_attention_case(23, 6, 1, 2, 2, 16),
             encoder_attention_case(23, 6, 2, 4, 2, 20), encoder_attention_case(40, 40, 3, 1, 1, 7),
             encoder_attention_case(9, 2, 8, 6, 1, 33), decoder_attention_case(23, 9, 1, 2, 2, 16),
             decoder_attention_case(31, 12, 4, 4, 2, 20), decoder_attention_case(5, 5, 8, 3, 3, 1),
             decoder_attention_case(0, 0, 2, 2, 2, 8),
             // Longer than one block of keys, and a block that is exactly full.
             segment_attention_case("long", Segments::from_lengths({3, 0, 90, 2}, true),
                                    Segments::from_lengths({130, 2, 64, 65}), 2, 1, 24),
             segment_attention_case("thousands", Segments::from_lengths({2, 40}),
                                    Segments::from_lengths({3000, 1}), 2, 2, 8),
             segment_attention_case("many queries", Segments::from_lengths({2500, 1}),
                                    Segments::from_lengths({2, 5}), 2, 2, 8),
             // The head widths that CUDA kernels are made for, and rows of many heads.
             encoder_attention_case(23, 6, 2, 2, 2, 64), decoder_attention_case(23, 6, 5, 2, 2, 96),
             encoder_attention_case(11, 3, 3, 4, 2, 128), decoder_attention_case(19, 7, 7, 9, 3, 32),
             encoder_attention_case(300, 3, 6, 2, 1, 40), decoder_attention_case(200, 2, 2, 4, 1, 64));

namespace blt {
namespace {

struct Qkv {
  at::Tensor q, k, v;
};

Qkv random_qkv(int64_t queries, int64_t keys, int64_t H, int64_t E) {
  Rng rng(3);
  return {rng.normal({queries, H, E}).to(at::kFloat), rng.normal({keys, H, E}).to(at::kFloat),
          rng.normal({keys, H, E}).to(at::kFloat)};
}

TEST(SegmentAttention, OneKeyIsItsValue) {
  const Qkv x = random_qkv(4, 2, 3, 5);
  const at::Tensor out = ops::segment_attention(x.q, x.k, x.v, Segments::from_lengths({1, 3}),
                                                Segments::from_lengths({1, 1}), 0.3);
  EXPECT_TRUE(at::equal(out[0], x.v[0]));
  EXPECT_TRUE(at::equal(out[3], x.v[1]));
}

TEST(SegmentAttention, AnEmptyQuerySegmentGivesItsKeysAZeroGradient) {
  Qkv x = random_qkv(2, 6, 2, 8);
  x.k.requires_grad_();
  x.v.requires_grad_();
  ops::segment_attention(x.q, x.k, x.v, Segments::from_lengths({1, 0, 1}, true),
                         Segments::from_lengths({2, 3, 1}), 1.0)
      .square()
      .sum()
      .backward();
  EXPECT_EQ(x.k.grad().slice(0, 2, 5).abs().max().item<float>(), 0);
  EXPECT_EQ(x.v.grad().slice(0, 2, 5).abs().max().item<float>(), 0);
  EXPECT_GT(x.v.grad().slice(0, 0, 2).abs().max().item<float>(), 0);
}

// Results and gradients of one document's segments, alone and between others.
TEST(SegmentAttention, ASegmentDoesNotDependOnItsNeighbours) {
  const std::vector<int64_t> queries{5, 2, 1, 70, 2, 3}, keys{9, 1, 100, 4, 7, 2};
  for (size_t first = 0; first < queries.size(); ++first) {
    int64_t q0 = 0, k0 = 0;
    for (size_t s = 0; s < first; ++s) q0 += queries[s], k0 += keys[s];
    const int64_t q1 = q0 + queries[first], k1 = k0 + keys[first];
    Qkv all = random_qkv(83, 123, 2, 19);
    Qkv alone{all.q.slice(0, q0, q1).clone(), all.k.slice(0, k0, k1).clone(), all.v.slice(0, k0, k1).clone()};
    for (Qkv* x : {&all, &alone})
      for (at::Tensor* t : {&x->q, &x->k, &x->v}) t->requires_grad_();
    const at::Tensor packed = ops::segment_attention(all.q, all.k, all.v, Segments::from_lengths(queries),
                                                     Segments::from_lengths(keys), 0.2);
    const at::Tensor single =
        ops::segment_attention(alone.q, alone.k, alone.v, Segments::from_lengths({queries[first]}),
                               Segments::from_lengths({keys[first]}), 0.2);
    EXPECT_TRUE(at::equal(packed.slice(0, q0, q1), single));
    packed.square().sum().backward();
    single.square().sum().backward();
    EXPECT_TRUE(at::equal(all.q.grad().slice(0, q0, q1), alone.q.grad()));
    EXPECT_TRUE(at::equal(all.k.grad().slice(0, k0, k1), alone.k.grad()));
    EXPECT_TRUE(at::equal(all.v.grad().slice(0, k0, k1), alone.v.grad()));
  }
}

TEST(SegmentAttention, LargeScoresDoNotOverflow) {
  Qkv x = random_qkv(3, 200, 1, 16);
  x.q.mul_(1e4);
  const Segments queries = Segments::from_lengths({3}), keys = Segments::from_lengths({200});
  const at::Tensor got = ops::segment_attention(x.q, x.k, x.v, queries, keys, 1.0);
  const at::Tensor expected = dense_segment_attention(x.q.to(at::kDouble), x.k.to(at::kDouble),
                                                      x.v.to(at::kDouble), queries, keys, 1.0);
  EXPECT_TRUE(at::allclose(got.to(at::kDouble), expected, 1e-3, 1e-3));
}

TEST(SegmentAttention, RefusesWhatDoesNotFit) {
  const Qkv x = random_qkv(4, 6, 2, 8);
  const Segments queries = Segments::from_lengths({1, 3}), keys = Segments::from_lengths({4, 2});
  const auto call = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const Segments& q_segments, const Segments& k_segments) {
    return ops::segment_attention(q, k, v, q_segments, k_segments, 1.0);
  };
  EXPECT_MESSAGE(call(x.q[0], x.k, x.v, queries, keys), "q must be [Nq, H, E], got [2, 8]");
  EXPECT_MESSAGE(call(x.q, x.k.slice(2, 0, 4), x.v, queries, keys), "k must be [Nk, Hkv, 8], got [6, 2, 4]");
  EXPECT_MESSAGE(call(x.q, x.k, x.v.slice(0, 0, 5), queries, keys),
                 "v must be like k [6, 2, 8], got [5, 2, 8]");
  EXPECT_MESSAGE(call(x.q.repeat({1, 2, 1}).slice(1, 0, 3), x.k, x.v, queries, keys),
                 "3 query heads do not divide among 2 key heads");
  EXPECT_MESSAGE(call(x.q, x.k.to(at::kDouble), x.v, queries, keys), "q is Float");
  EXPECT_MESSAGE(call(x.q, x.k, x.v, Segments::from_lengths({1, 2}), keys),
                 "the segments cover 3 rows, but q has 4");
  EXPECT_MESSAGE(call(x.q, x.k, x.v, queries, Segments::from_lengths({4, 1, 1})),
                 "2 query segments but 3 key segments");
  EXPECT_MESSAGE(call(x.q, x.k, x.v, queries, Segments::from_lengths({6, 0}, true)),
                 "key segment 1 is empty");
}

}  // namespace
}  // namespace blt
