// The memory of the operators whose plain versions would need more is linear in bytes: one document of 1,024 and one of 8,192 of them.
// (Time is measured by bench/scaling.)
#include <gtest/gtest.h>

#include <functional>

#include "blt/ops/ngram_embedding.h"
#include "blt/ops/segment_attention.h"
#include "blt/ops/segment_pool.h"
#include "blt/ops/window_attention.h"
#include "memory_meter.h"
#include "op_case.h"

namespace blt {
namespace {

constexpr int64_t kFew = 1024, kMany = 8 * kFew;

at::Tensor leaf(at::Tensor x) { return x.requires_grad_(); }

// The peak of a forward and a backward pass of op(bytes), which returns a differentiable tensor. done() drops what a pass leaves.
template <class Op>
void expect_linear(
    const Op& op, const std::function<void()>& done = [] {}) {
  MemoryMeter meter;
  const auto peak = [&](int64_t bytes) {
    const int64_t most = meter.peak([&] { op(bytes).sum().backward(); });
    done();
    return static_cast<double>(most);
  };
  peak(kFew);  // what is made once
  const double few = peak(kFew), many = peak(kMany);
  EXPECT_GT(few, 0);
  EXPECT_LE(many / few, 8.5) << few << " bytes of memory for " << kFew << " bytes of text, " << many
                             << " for " << kMany;
}

// A patch of four bytes and a half, on average.
Segments patches_of(int64_t bytes) { return Rng(1).segments(bytes, bytes * 2 / 9); }

TEST(LinearMemory, WindowAttention) {
  for (const int64_t window : {int64_t{64}, int64_t{0}})
    expect_linear([&](int64_t bytes) {
      const auto x = [&] { return leaf(at::rand({bytes, 2, 32})); };
      return ops::window_attention(x(), x(), x(), Segments::from_lengths({bytes}), window, 0.2);
    });
}

TEST(LinearMemory, SegmentAttentionOfTheEncoder) {
  expect_linear([](int64_t bytes) {
    const Segments patches = patches_of(bytes), slots = Segments::uniform(patches.count, 2, at::kCPU);
    const at::Tensor q = leaf(at::rand({slots.total, 2, 32}));
    const auto x = [&] { return leaf(at::rand({bytes, 2, 32})); };
    return ops::segment_attention(q, x(), x(), slots, patches, 0.2);
  });
}

TEST(LinearMemory, SegmentAttentionOfTheDecoder) {
  expect_linear([](int64_t bytes) {
    const Segments patches = patches_of(bytes), slots = Segments::uniform(patches.count, 2, at::kCPU);
    const at::Tensor q = leaf(at::rand({bytes, 2, 32}));
    const auto x = [&] { return leaf(at::rand({slots.total, 2, 32})); };
    return ops::segment_attention(q, x(), x(), patches, slots, 0.2);
  });
}

TEST(LinearMemory, SegmentPool) {
  expect_linear([](int64_t bytes) {
    return ops::segment_pool(leaf(at::rand({bytes, 64})), patches_of(bytes), Pooling::kMax);
  });
}

// Far less than one dense gradient of the tables, too.
TEST(LinearMemory, NgramEmbedding) {
  const NgramHash hash{.sizes = {3, 4, 5, 6, 7, 8}, .rows = 20000, .functions = 1};
  const at::Tensor byte_table = leaf(at::rand({kVocabulary, 64})),
                   ngram_table = leaf(at::rand({hash.num_tables() * hash.rows, 64}));
  std::vector<RowGradient> gradients;
  const auto op = [&](int64_t bytes) {
    const at::Tensor ids = at::randint(0, kVocabulary, {bytes}, at::kInt);
    return ops::ngram_embedding(ids, Segments::from_lengths({bytes}), byte_table, ngram_table, hash,
                                &gradients);
  };
  expect_linear(op, [&] { gradients.clear(); });
  MemoryMeter meter;
  EXPECT_LT(meter.peak([&] { op(kFew).sum().backward(); }), static_cast<int64_t>(ngram_table.nbytes()) / 4);
}

// The test can fail: the square of scores that nothing here may build is found out.
TEST(LinearMemory, SeesAMatrixOfScores) {
  MemoryMeter meter;
  const auto peak = [&](int64_t bytes) {
    return static_cast<double>(meter.peak([&] {
      const at::Tensor x = at::rand({bytes, 32});
      x.matmul(x.t()).softmax(-1);
    }));
  };
  EXPECT_GT(peak(kMany) / peak(kFew), 30);
}

}  // namespace
}  // namespace blt
