// Gradients of table rows and their update: what the CUDA code makes of them, beside the CPU's. Sizes of results differ (on CUDA they are what
// could be), so these are not cases of op_tests.h.
#include <ATen/Context.h>
#include <ATen/TensorIndexing.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <string>

#include "blt/ops/segment_attention.h"
#include "blt/ops/segment_pool.h"
#include "cuda_emulation/kernels.h"
#include "message.h"
#include "ngram_embedding_cases.h"
#include "ops/ngram_embedding/cuda_rows_kernel.h"

namespace blt {
namespace {

// Where the code under test runs: emulated in another order of blocks and threads for each seed, or on a device.
struct Where {
  std::optional<uint64_t> seed;

  Tensors run(const Tensors& inputs, const std::function<Tensors(const Tensors&)>& f) const {
    if (!seed) return convert_back(f(move(inputs, at::kCUDA)));
    const emulation::EmulatedCuda cuda(*seed);
    Tensors results = f(inputs);
    EXPECT_GT(cuda.launches(), 0);
    return results;
  }

 private:
  static Tensors move(const Tensors& x, at::Device device) {
    Tensors result;
    for (const at::Tensor& t : x) result.push_back(t.to(device));
    return result;
  }
  static Tensors convert_back(const Tensors& x) { return move(x, at::kCPU); }
};

void emulated(const std::function<void(const Where&)>& test) {
  for (const uint64_t seed : {1, 2}) test({seed});
}
void on_device(const std::function<void(const Where&)>& test) {
  if (!at::hasCUDA() || at::getNumGPUs() == 0) GTEST_SKIP() << "no CUDA device";
  test({std::nullopt});
}

#define BLT_CUDA_TEST(suite, name)                       \
  void suite##name(const Where& where);                  \
  TEST(suite, Emulated##name) { emulated(suite##name); } \
  TEST(suite, Cuda##name) { on_device(suite##name); }    \
  void suite##name(const Where& where)

Tensors call_touched_rows(const at::Tensor& grad, const at::Tensor& ids, int64_t rows) {
  using Signature =
      std::tuple<at::Tensor, at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, int64_t);
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("blt::touched_rows", "").typed<Signature>();
  const auto [touched, values, count] = op.call(grad, ids, rows);
  return {touched, values, count};
}

// got: {ids, values, count} with room to spare.
void expect_rows(const Tensors& got, const Tensors& expected, int64_t capacity, const std::string& what) {
  ASSERT_EQ(got[2].item<int32_t>(), expected[2].item<int32_t>()) << what;
  EXPECT_EQ(got[0].size(0), capacity);
  EXPECT_EQ(got[1].size(0), capacity);
  EXPECT_EQ(got[1].scalar_type(), at::kFloat);
  const int64_t count = expected[2].item<int32_t>();
  EXPECT_TRUE(at::equal(got[0].slice(0, 0, count), expected[0])) << what;
  EXPECT_TRUE(at::allclose(got[1].slice(0, 0, count), expected[1], 1e-5, 1e-5)) << what;
}

BLT_CUDA_TEST(TouchedRows, EqualTheCpus) {
  for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const auto& [T, tables, rows, C] :
         std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t>>{{1, 1, 1, 8},
                                                                     {50, 3, 7, 5},
                                                                     {700, 2, 300, 24},
                                                                     {400, 3, 2, 40} /* long runs */,
                                                                     {33, 2, 500, 300}}) {
      Rng rng(T);
      at::Tensor ids = rng.integer({T, tables}, 0, static_cast<int64_t>(rows)) +
                       at::arange(tables, at::kInt) * static_cast<int>(rows);
      ids = ids.masked_fill(rng.uniform({T, tables}) < 0.1, -1);  // left out
      const at::Tensor grad = rng.normal({T, C}).to(dtype);
      const int64_t table_rows = rows;
      const Tensors expected = call_touched_rows(grad, ids, rows);
      const Tensors got = where.run(
          {grad, ids}, [&](const Tensors& in) { return call_touched_rows(in[0], in[1], table_rows); });
      expect_rows(got, expected, T * tables, c10::toString(dtype) + std::string(" T") + std::to_string(T));
    }
}

BLT_CUDA_TEST(TouchedRows, MayBeNone) {
  const at::Tensor ids = at::full({9, 2}, -1, at::kInt), grad = at::ones({9, 4});
  const Tensors got =
      where.run({grad, ids}, [&](const Tensors& in) { return call_touched_rows(in[0], in[1], 5); });
  EXPECT_EQ(got[2].item<int32_t>(), 0);
}

RowGradient rows_of(const Tensors& x) { return {x[0], x[1], x[2], x[0].size(0)}; }

// What is behind the rows that there are is not read: it holds NaN.
BLT_CUDA_TEST(RowsNorm, IsThatOfTheRowsThatThereAre) {
  for (const auto& [capacity, count, C] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
           {1, 1, 1}, {9, 0, 4}, {700, 391, 24}, {50, 49, 5}, {40, 40, 300}}) {
    Rng rng(capacity);
    const at::Tensor values = rng.normal({capacity, C}).to(at::kFloat);
    values.narrow(0, count, capacity - count).fill_(std::numeric_limits<float>::quiet_NaN());
    const at::Tensor ids = at::arange(capacity, at::kInt), number = at::scalar_tensor(count, at::kInt);
    const at::Tensor expected = values.narrow(0, 0, count).to(at::kDouble).norm();
    const auto norm = [&](const Tensors& in) -> Tensors {
      return {ops::norm(rows_of({in[0], in[1], in[2]}))};
    };
    for (const at::Tensor& got :
         {where.run({ids, values, number}, norm)[0], norm({ids, values, number})[0]}) {
      EXPECT_EQ(got.scalar_type(), at::kFloat);
      EXPECT_EQ(got.dim(), 0);
      EXPECT_NEAR(got.item<double>(), expected.item<double>(), 1e-6 * (1 + expected.item<double>())) << C;
    }
  }
}

BLT_CUDA_TEST(MergedRows, EqualTheCpus) {
  Rng rng(3);
  Tensors all;
  for (const int64_t count : {4, 0, 90, 31}) {
    all.push_back(at::randperm(100).slice(0, 0, count + 3).msort().to(at::kInt));
    all.push_back(rng.normal({count + 3, 20}).to(at::kFloat));
    all.push_back(at::scalar_tensor(count, at::kInt));  // three of room to spare
  }
  const auto merge = [](const Tensors& x) -> Tensors {
    std::vector<RowGradient> gradients;
    for (size_t i = 0; i < x.size(); i += 3) gradients.push_back(rows_of({x[i], x[i + 1], x[i + 2]}));
    const RowGradient merged = ops::merge(gradients);
    return {merged.ids, merged.values, merged.count};
  };
  expect_rows(where.run(all, merge), merge(all), 4 + 0 + 90 + 31 + 4 * 3, "merged");
}

BLT_CUDA_TEST(NgramEmbedding, BackwardGivesTheCpusRows) {
  const NgramHash hash{{4, 2, 3}, 61, 2};
  const NgramDropout dropout{0.3, 9};
  Rng rng(5);
  const Segments documents = rng.segments(300, 9);
  const Tensors inputs{rng.integer({300}, 0, 3), rng.normal({40, 21}).to(at::kFloat),
                       rng.normal({hash.num_tables() * hash.rows, 21}).to(at::kFloat),
                       rng.normal({300, 21}).to(at::kFloat)};
  const auto backward = [&](const Tensors& in) -> Tensors {
    std::vector<RowGradient> gradients;
    ops::ngram_embedding(in[0], documents.to(in[0].device()), in[1], in[2].detach().requires_grad_(), hash,
                         &gradients, dropout)
        .backward(in[3]);
    EXPECT_EQ(gradients.size(), 1u);
    EXPECT_EQ(gradients[0].capacity, gradients[0].ids.size(0));
    return {gradients[0].ids, gradients[0].values, gradients[0].count};
  };
  expect_rows(where.run(inputs, backward), backward(inputs), 300 * 6, "rows");
}

BLT_CUDA_TEST(NgramIds, EqualTheDefinitionForAnyIds) {
  Rng rng(17);
  const at::Tensor bytes = rng.integer({64}, INT32_MIN, INT32_MAX);
  const Segments documents = rng.segments(64, 5);
  for (const NgramHash& hash :
       {NgramHash{{1, 2, 3, 8, 20}, 50002, 2}, NgramHash{{5}, 2147483647, 1}, NgramHash{{9, 3}, 1, 13}}) {
    const Tensors got = where.run({bytes}, [&](const Tensors& in) {
      return Tensors{ops::ngram_ids(in[0], documents.to(in[0].device()), hash)};
    });
    EXPECT_TRUE(at::equal(got[0], plain_ngram_ids(bytes, documents, hash))) << describe(hash);
  }
}

// Some bytes of a text are so frequent that their rows lie in many parts of the pairs; others end where a part ends.
BLT_CUDA_TEST(ByteTableGradient, EqualsTheCpus) {
  const auto call = [](const Tensors& in) {
    using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, int64_t);
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("blt::byte_table_gradient", "").typed<Signature>();
    return Tensors{op.call(in[0], in[1], 260)};
  };
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const std::vector<int64_t>& counts : std::vector<std::vector<int64_t>>{{1},
                                                                                {128},
                                                                                {129},
                                                                                {256, 1},
                                                                                {100, 28, 128, 3},
                                                                                {1, 900, 5, 127},
                                                                                {130, 130, 130},
                                                                                {64, 64, 640}}) {
      Tensors bytes;
      for (size_t i = 0; i < counts.size(); ++i)
        bytes.push_back(at::full({counts[i]}, static_cast<int64_t>(7 + 80 * i), at::kInt));
      const at::Tensor in_order = at::cat(bytes);
      Rng rng(counts.size());
      for (const int64_t columns : {5, 40}) {
        const at::Tensor all = in_order.index_select(0, at::randperm(in_order.size(0)));
        const Tensors inputs{rng.normal({all.size(0), columns}).to(dtype), all};
        const at::Tensor got = where.run(inputs, call)[0], expected = call(inputs)[0];
        EXPECT_EQ(got.scalar_type(), dtype);
        EXPECT_TRUE(at::allclose(got.to(at::kFloat), expected.to(at::kFloat),
                                 dtype == at::kFloat ? 1e-5 : 1e-2, dtype == at::kFloat ? 1e-4 : 1e-2))
            << all.size(0) << " bytes, " << columns << " columns";
      }
    }
}

// More parts than one block of the scan takes in one go.
TEST(RowSums, EmulatedOfManyPairs) {
  namespace gpu = ops::BLT_DEVICE;
  constexpr int64_t kPairs = 270'000, kRuns = 90'000, kNone = 1000;
  std::vector<int32_t> keys(kPairs + kNone, INT32_MAX), sources(kPairs + kNone, 0);
  std::vector<float> from(kPairs);
  for (int64_t i = 0; i < kPairs; ++i) {
    keys[i] = static_cast<int32_t>(i / 3 * 2);
    sources[i] = static_cast<int32_t>(kPairs - 1 - i);
    from[kPairs - 1 - i] = static_cast<float>(i % 7);
  }
  const auto num_parts = gpu::parts(kPairs + kNone);
  std::vector<int32_t> before(num_parts), ids(kPairs + kNone, -1);
  std::vector<float> sums(kPairs + kNone, -1), partial(2 * num_parts, -1);
  int32_t count = -1;
  const gpu::RowRuns runs{keys.data(), kPairs + kNone, INT32_MAX, before.data(), &count};
  gpu::launch_row_runs(runs, nullptr);
  gpu::launch_row_sums(gpu::Storage::kFloat, /*to_float=*/true,
                       {runs, sources.data(), from.data(), ids.data(), sums.data(), partial.data(), 1},
                       nullptr);
  ASSERT_EQ(count, kRuns);
  int64_t wrong = 0;
  for (int64_t r = 0; r < kRuns; ++r) {
    const auto expected = static_cast<float>(3 * r % 7 + (3 * r + 1) % 7 + (3 * r + 2) % 7);
    wrong += ids[r] != 2 * r || sums[r] != expected;
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(ids[kRuns], -1);
}

// The table, its moments, and the table rounded.
Tensors updated(const Tensors& in, const ops::AdamWStep& step) {
  at::Tensor table = in[0].clone(), exp_avg = in[1].clone(), exp_avg_sq = in[2].clone();
  const at::Tensor rounded = in[0].to(at::kBFloat16);
  ops::row_adamw_(table, exp_avg, exp_avg_sq, rows_of({in[3], in[4], in[5]}), in[6], step, rounded);
  return {table, exp_avg, exp_avg_sq, rounded};
}

Tensors random_update(Rng& rng, int64_t R, int64_t C, int64_t count, int64_t spare, double scale) {
  const at::Tensor ids =
      at::cat({at::randperm(R).slice(0, 0, count).msort().to(at::kInt), at::full({spare}, -5, at::kInt)});
  const at::Tensor values =
      at::cat({rng.normal({count, C}), at::full({spare, C}, 1e30, at::kDouble)}).to(at::kFloat);
  return {rng.normal({R, C}).to(at::kFloat),
          rng.normal({R, C}).to(at::kFloat) * 0.1,
          rng.uniform({R, C}).to(at::kFloat) * 0.01,
          ids,
          values,
          at::scalar_tensor(count, at::kInt),
          at::scalar_tensor(scale, at::kFloat)};
}

// The moments of an update in the types and shapes of a kind of state.
Tensors with_state(const Tensors& inputs, at::ScalarType moments, bool by_row) {
  Tensors result = inputs;
  result[1] = inputs[1].to(moments);
  result[2] = by_row ? inputs[2].mean(1) : inputs[2].to(moments);
  return result;
}

// Emulated, the same bits: the same operations in the same order, and the same random bits. A device may fuse a product and a sum, which moves a
// float by a bit, and a bfloat16 that lay close to where it is rounded by one of its own.
void expect_same_update(const Where& where, const at::Tensor& got, const at::Tensor& expected,
                        const std::string& what) {
  ASSERT_EQ(got.scalar_type(), expected.scalar_type()) << what;
  if (where.seed) {
    EXPECT_TRUE(at::equal(got, expected)) << what;
  } else if (expected.scalar_type() == at::kBFloat16) {
    EXPECT_TRUE(at::allclose(got.to(at::kFloat), expected.to(at::kFloat), 1.0 / 128, 1e-6)) << what;
    EXPECT_LE((got != expected).to(at::kDouble).mean().item<double>(), 0.02) << what;
  } else {
    EXPECT_TRUE(at::allclose(got, expected, 1e-5, 1e-6)) << what;
  }
}

BLT_CUDA_TEST(RowAdamW, EqualsTheCpus) {
  for (const auto& [R, C, count] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
           {50, 20, 13}, {7, 1, 7}, {100, 33, 0}, {64, 256, 1}, {90, 8, 90}})
    for (const bool touched_only : {false, true})
      for (const at::ScalarType moments : {at::kFloat, at::kBFloat16})
        for (const bool by_row : {false, true}) {
          Rng rng(31);
          const Tensors inputs = with_state(random_update(rng, R, C, count, 2, 0.5), moments, by_row);
          const ops::AdamWStep step{.learning_rate = 0.01,
                                    .weight_decay = 0.1,
                                    .step = 3,
                                    .touched_only = touched_only,
                                    .seed = 7,
                                    .first_row = 1000};
          const Tensors expected = updated(inputs, step);
          const Tensors got = where.run(inputs, [&](const Tensors& in) { return updated(in, step); });
          const auto what = [&](size_t i) {
            return "R" + std::to_string(R) + " C" + std::to_string(C) + " " + c10::toString(moments) +
                   (by_row ? " by row" : "") + (touched_only ? " lazy" : "") + " tensor " + std::to_string(i);
          };
          for (size_t i = 0; i < 4; ++i) expect_same_update(where, got[i], expected[i], what(i));
          EXPECT_TRUE(at::equal(got[3], got[0].to(at::kBFloat16))) << what(3);
          if (!touched_only) continue;
          at::Tensor untouched = at::ones({R}, at::kBool);
          untouched.index_fill_(0, inputs[3].slice(0, 0, count).to(at::kLong), 0);
          for (size_t i = 0; i < 3; ++i)
            EXPECT_TRUE(at::equal(got[i].index({untouched}), inputs[i].index({untouched}))) << what(i);
        }
}

BLT_CUDA_TEST(RowAdamW, AScaleThatIsNotFiniteChangesNothing) {
  for (const double scale :
       {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity()}) {
    for (const at::ScalarType moments : {at::kFloat, at::kBFloat16})
      for (const bool by_row : {false, true}) {
        Rng rng(43);
        const Tensors inputs = with_state(random_update(rng, 9, 4, 3, 0, scale), moments, by_row);
        const Tensors got =
            where.run(inputs, [&](const Tensors& in) { return updated(in, {.learning_rate = 0.1}); });
        for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(got[i], inputs[i]));
      }
  }
}

TEST(CudaGlue, RefusesWhatKernelsDoNotTake) {
  const emulation::EmulatedCuda cuda;
  const Segments one = Segments::uniform(1, 4, at::kCPU);
  EXPECT_MESSAGE(ops::segment_pool(at::zeros({4, 3}, at::kDouble), one, Pooling::kMax),
                 "segment_pool: on CUDA, tensors are float32, float16 or bfloat16, got Double");
  const at::Tensor wide = at::zeros({4, 1, 130});
  EXPECT_MESSAGE(ops::segment_attention(wide, wide, wide, one, one, 1.0),
                 "on CUDA, heads are at most 128 wide, got 130");
  NgramHash hash{std::vector<int64_t>(33, 3), 10, 1};
  EXPECT_MESSAGE(ops::ngram_ids(at::zeros({4}, at::kInt), one, hash), "at most 32 group sizes");
}

}  // namespace
}  // namespace blt
