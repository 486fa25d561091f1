#include "blt/ops/window_attention.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "message.h"
#include "op_tests.h"
#include "window_attention_cases.h"

BLT_OP_TESTS(
    WindowAttention,
    // Windows of nothing but itself, of a few, of all, around the edges of blocks of keys and queries.
    window_attention_case({23}, 2, 2, 16, 0), window_attention_case({23}, 2, 2, 16, 1),
    window_attention_case({40, 30}, 2, 2, 16, 7), window_attention_case({150}, 1, 1, 32, 31),
    window_attention_case({600}, 1, 1, 16, 512), window_attention_case({64, 128, 65}, 1, 1, 16, 64),
    window_attention_case({140, 129}, 1, 1, 8, 0), window_attention_case({50}, 1, 1, 16, 50),
    window_attention_case({50}, 1, 1, 16, 5000),
    // Documents of one, no documents.
    window_attention_case({1, 1, 5, 1}, 2, 2, 16, 0), window_attention_case({1}, 1, 1, 1, 3),
    window_attention_case({}, 2, 2, 16, 4),
    // Grouped queries, and widths that fill no vector.
    window_attention_case({70, 9}, 4, 2, 16, 20), window_attention_case({70, 9}, 6, 1, 5, 20),
    window_attention_case({33}, 3, 3, 33, 0), window_attention_case({80}, 2, 1, 48, 40),
    window_attention_case({70}, 1, 1, 128, 0));

namespace blt {
namespace {

struct Qkv {
  at::Tensor q, k, v;
};

Qkv random_qkv(int64_t T, int64_t H, int64_t Hkv, int64_t E, at::ScalarType dtype = at::kFloat) {
  Rng rng(5);
  return {rng.normal({T, H, E}).to(dtype), rng.normal({T, Hkv, E}).to(dtype),
          rng.normal({T, Hkv, E}).to(dtype)};
}

Qkv rows(const Qkv& x, int64_t first, int64_t last) {
  return {x.q.slice(0, first, last).clone(), x.k.slice(0, first, last).clone(),
          x.v.slice(0, first, last).clone()};
}

// The output, then the gradients of the sum of its squares.
Tensors run(Qkv x, const std::vector<int64_t>& lengths, int64_t window) {
  for (at::Tensor* t : {&x.q, &x.k, &x.v}) *t = t->detach().clone().requires_grad_();
  const at::Tensor out = ops::window_attention(x.q, x.k, x.v, Segments::from_lengths(lengths), window, 0.2);
  out.square().sum().backward();
  return {out.detach(), x.q.grad(), x.k.grad(), x.v.grad()};
}

TEST(WindowAttention, ADocumentDoesNotDependOnWhatItIsPackedWith) {
  const std::vector<int64_t> lengths{37, 1, 300, 64, 130};
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble})
    for (const int64_t window : {0, 1, 50, 512}) {
      const Qkv all = random_qkv(532, 4, 2, 24, dtype);
      const Tensors packed = run(all, lengths, window);
      int64_t first = 0;
      for (const int64_t length : lengths) {
        const Tensors alone = run(rows(all, first, first + length), {length}, window);
        for (size_t i = 0; i < alone.size(); ++i)
          EXPECT_TRUE(at::equal(alone[i], packed[i].slice(0, first, first + length)))
              << "tensor " << i << ", length " << length << ", window " << window;
        first += length;
      }
    }
}

TEST(WindowAttention, DoesNotDependOnTheNumberOfThreads) {
  const int threads = at::get_num_threads();
  const Qkv x = random_qkv(700, 4, 2, 32);
  at::set_num_threads(1);
  const Tensors one = run(x, {300, 400}, 100);
  at::set_num_threads(2);
  const Tensors two = run(x, {300, 400}, 100);
  at::set_num_threads(threads);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i])) << "tensor " << i;
}

// A later byte, and one that has left the window, change nothing: not a bit.
TEST(WindowAttention, SeesNothingOutsideItsWindow) {
  Qkv x = random_qkv(300, 1, 1, 16);
  const Segments document = Segments::from_lengths({300});
  constexpr double kScale = 0.1;  // small scores: every key that is seen weighs enough to show
  const at::Tensor before = ops::window_attention(x.q, x.k, x.v, document, 70, kScale);
  x.k[100].add_(1);
  x.v[100].add_(1);
  const at::Tensor changed =
      (before != ops::window_attention(x.q, x.k, x.v, document, 70, kScale)).flatten(1).any(1);
  EXPECT_FALSE(changed.slice(0, 0, 100).any().item<bool>());
  EXPECT_TRUE(changed.slice(0, 100, 170).all().item<bool>());
  EXPECT_FALSE(changed.slice(0, 170).any().item<bool>());
}

TEST(WindowAttention, LargeScoresDoNotOverflow) {
  Qkv x = random_qkv(200, 1, 1, 16);
  x.q.mul_(1e4);
  const Segments document = Segments::from_lengths({200});
  const at::Tensor got = ops::window_attention(x.q, x.k, x.v, document, 0, 1.0);
  const at::Tensor expected =
      dense_window_attention(x.q.to(at::kDouble), x.k.to(at::kDouble), x.v.to(at::kDouble), document, 0, 1.0);
  EXPECT_TRUE(at::allclose(got.to(at::kDouble), expected, 1e-3, 1e-3));
}

TEST(WindowAttention, RefusesWhatDoesNotFit) {
  const Qkv x = random_qkv(6, 4, 2, 8);
  const Segments documents = Segments::from_lengths({4, 2});
  const auto call = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Segments& d,
                        int64_t window) { return ops::window_attention(q, k, v, d, window, 1.0); };
  EXPECT_MESSAGE(call(x.q[0], x.k, x.v, documents, 0), "q must be [T, H, E] floating, got Float [4, 8]");
  EXPECT_MESSAGE(call(x.q.to(at::kInt), x.k, x.v, documents, 0), "q must be [T, H, E] floating, got Int");
  EXPECT_MESSAGE(call(x.q, x.k.slice(2, 0, 4), x.v, documents, 0),
                 "k and v must be [6, Hkv, 8] like q [6, 4, 8], got [6, 2, 4] and [6, 2, 8]");
  EXPECT_MESSAGE(call(x.q, x.k, x.v.slice(0, 0, 5), documents, 0), "got [6, 2, 8] and [5, 2, 8]");
  EXPECT_MESSAGE(call(x.q.slice(1, 0, 3), x.k, x.v, documents, 0),
                 "the heads of q, 3, must be a multiple of those of k, 2");
  EXPECT_MESSAGE(call(x.q, x.k.to(at::kDouble), x.v, documents, 0),
                 "q is Float on cpu, but k is Double on cpu");
  EXPECT_MESSAGE(call(x.q, x.k, x.v, documents, -1), "the window must be 0 (all before) or positive, got -1");
  EXPECT_MESSAGE(call(x.q, x.k, x.v, Segments::from_lengths({4, 1}), 0),
                 "the segments cover 5 rows, but q has 6");
  EXPECT_MESSAGE(call(x.q, x.k, x.v, Segments::from_lengths({4, 0, 2}, true), 0), "document 1 is empty");
}

}  // namespace
}  // namespace blt
