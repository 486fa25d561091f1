#include "blt/ops/ngram_embedding.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "everywhere.h"
#include "message.h"
#include "ngram_embedding_cases.h"
#include "op_tests.h"

BLT_OP_TESTS(NgramEmbedding, ngram_embedding_case(29, 3, 5, {{3, 4, 5}, 41, 1}),
             ngram_embedding_case(29, 3, 16, {{8, 1, 3, 3}, 7, 2}),
             ngram_embedding_case(29, 29, 33, {{2, 4}, 1, 1}), ngram_embedding_case(1, 1, 1, {{6}, 3, 12}),
             ngram_embedding_case(40, 2, 20, {}), ngram_embedding_case(0, 0, 8, {{3, 4}, 5, 1}),
             ngram_embedding_case(2000, 3, 24, {{3, 4, 5}, 1000, 1}),
             ngram_embedding_case(700, 3, 21, {{3, 4, 5}, 100, 2}, {0.3, -77}),
             ngram_embedding_case(29, 3, 5, {{3, 4}, 41, 1}, {1.0, 5}));

namespace blt {
namespace {

nlohmann::json golden() {
  std::ifstream file(std::string(BLT_GOLDEN_DIR) + "/hash.json");
  return nlohmann::json::parse(file);
}

at::Tensor ints(const std::vector<int32_t>& values) { return at::tensor(values, at::kInt); }

Segments one_document(const at::Tensor& x) { return Segments::uniform(1, x.size(0), at::kCPU); }

// A hash with `function` as its last function, and the ids of that function alone.
at::Tensor ids_of(const at::Tensor& bytes, int64_t function, int64_t size, int64_t rows) {
  const NgramHash hash{{size}, rows, function + 1};
  return ops::ngram_ids(bytes, one_document(bytes), hash).select(1, function) -
         static_cast<int32_t>(function * rows);
}

TEST(NgramIds, EqualTheReferences) {
  const nlohmann::json cases = golden()["cases"];
  ASSERT_EQ(cases.size(), 486u);
  for (const auto& c : cases)
    EXPECT_TRUE(
        at::equal(ids_of(ints(c["tokens"]), c["hash_func"], c["group_size"], c["vocab"]), ints(c["ids"])))
        << c["name"] << " function " << c["hash_func"] << " size " << c["group_size"];
}

// Sums before the modulo, seen through several moduli: their product exceeds 2^64, so they tell all int64 apart.
TEST(NgramIds, WrapAroundLikeTheReferences) {
  const nlohmann::json cases = golden()["raw_int64"];
  ASSERT_FALSE(cases.empty());
  for (const auto& c : cases) {
    const at::Tensor raw = at::tensor(c["int64"].get<std::vector<int64_t>>(), at::kLong);
    const int64_t function = c["hash_func"];
    for (const int64_t rows :
         {(int64_t{1} << 27) - 39, (int64_t{1} << 27) - 1, int64_t{100000007}, int64_t{1}})
      EXPECT_TRUE(at::equal(ids_of(ints(c["tokens"]), function, c["group_size"], rows).to(at::kLong),
                            raw.remainder(rows)));
  }
}

TEST(NgramIds, EqualTheDefinitionForAnyIds) {
  Rng rng(17);
  const at::Tensor bytes = rng.integer({64}, INT32_MIN, INT32_MAX);
  const Segments documents = rng.segments(64, 5);
  for (const NgramHash& hash :
       {NgramHash{{1, 2, 3, 8, 20}, 50002, 2}, NgramHash{{5}, 2147483647, 1}, NgramHash{{9, 3}, 1, 13}})
    EXPECT_TRUE(at::equal(ops::ngram_ids(bytes, documents, hash), plain_ngram_ids(bytes, documents, hash)))
        << describe(hash);
}

struct Tables {
  at::Tensor bytes, ngrams;
};

Tables random_tables(const NgramHash& hash, int64_t C, at::ScalarType dtype = at::kFloat) {
  Rng rng(19);
  return {rng.normal({40, C}).to(dtype), rng.normal({hash.num_tables() * hash.rows, C}).to(dtype)};
}

// The rows of one backward pass with the gradient `weights`.
RowGradient backward_rows(const at::Tensor& bytes, const Segments& documents, Tables tables,
                          const NgramHash& hash, const at::Tensor& weights,
                          const NgramDropout& dropout = {}) {
  tables.ngrams = tables.ngrams.detach().requires_grad_();
  std::vector<RowGradient> gradients;
  ops::ngram_embedding(bytes, documents, tables.bytes, tables.ngrams, hash, &gradients, dropout)
      .backward(weights);
  TORCH_CHECK(gradients.size() == 1 && !tables.ngrams.grad().defined(), "one gradient, as rows");
  return gradients[0];
}

// The rows of a gradient, as dense gradients in float64 with look-ups left out say them.
at::Tensor dense_gradient(const at::Tensor& bytes, const Segments& documents, const at::Tensor& table,
                          const NgramHash& hash, const at::Tensor& weights, const NgramDropout& dropout) {
  at::Tensor dense = table.to(at::kDouble).detach().requires_grad_();
  const at::Tensor ids = plain_ngram_ids(bytes, documents, hash);
  const at::Tensor factor = plain_dropout(bytes.size(0), hash.num_tables(), dropout);
  at::Tensor total = at::zeros(weights.sizes(), at::kDouble);
  for (int64_t t = 0; t < hash.num_tables(); ++t)
    total = total + at::embedding(dense, ids.select(1, t)) * factor.select(1, t).unsqueeze(1);
  total.backward(weights.to(at::kDouble));
  return dense.grad();
}

TEST(NgramEmbedding, TouchedRowsAreTheDenseGradient) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble})
    for (const int64_t T : {1, 50, 700}) {
      const NgramHash hash{{4, 2, 3}, 61, 2};
      Rng rng(T);
      const Segments documents = rng.segments(T, (T + 24) / 25);
      const at::Tensor bytes = rng.integer({T}, 0, 3);  // few ids: many equal rows
      const Tables tables = random_tables(hash, 21, dtype);
      const at::Tensor weights = rng.normal({T, 21}).to(dtype);
      const RowGradient rows = backward_rows(bytes, documents, tables, hash, weights);

      const int64_t count = rows.count.item<int32_t>();
      EXPECT_EQ(rows.capacity, count);
      EXPECT_EQ(rows.ids.size(0), count);
      EXPECT_TRUE(rows.ids.diff().gt(0).all().item<bool>());

      const at::Tensor expected = dense_gradient(bytes, documents, tables.ngrams, hash, weights, {});
      EXPECT_EQ(count, expected.ne(0).any(1).sum().item<int64_t>());
      const double tolerance = dtype == at::kDouble ? 1e-13 : 2e-5;
      EXPECT_TRUE(at::allclose(dense_rows(rows, expected.size(0), 21).to(at::kDouble), expected, tolerance,
                               tolerance));
    }
}

TEST(NgramDropout, RowsThatWereLeftOutAreNotTouchedAndOthersHaveTheDenseGradient) {
  const NgramHash hash{{4, 2, 3}, 61, 2};
  Rng rng(7);
  const Segments documents = rng.segments(300, 9);
  const at::Tensor bytes = rng.integer({300}, 0, 3);
  const at::Tensor weights = rng.normal({300, 21});
  const auto touched = [&](const NgramDropout& dropout) {
    return backward_rows(bytes, documents, random_tables(hash, 21), hash, weights.to(at::kFloat), dropout)
        .count.item<int32_t>();
  };
  for (const NgramDropout& dropout : {NgramDropout{0.1, 1}, NgramDropout{0.9, 2}, NgramDropout{0.999, 4}})
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
      const Tables tables = random_tables(hash, 21, dtype);
      const RowGradient rows = backward_rows(bytes, documents, tables, hash, weights.to(dtype), dropout);
      const at::Tensor expected =
          dense_gradient(bytes, documents, tables.ngrams, hash, weights.to(dtype), dropout);
      EXPECT_EQ(rows.count.item<int64_t>(), expected.ne(0).any(1).sum().item<int64_t>());
      EXPECT_EQ(rows.values.scalar_type(), dtype == at::kDouble ? at::kDouble : at::kFloat);
      const double tolerance = dtype == at::kDouble ? 1e-13 : 2e-5;
      EXPECT_TRUE(at::allclose(dense_rows(rows, expected.size(0), 21).to(at::kDouble), expected, tolerance,
                               tolerance))
          << dtype << " " << dropout.probability;
    }
  EXPECT_LT(touched({0.9, 2}), touched({}));
  EXPECT_EQ(touched({1.0, 2}), 0);
}

// Central differences of the forward in the table: the backward leaves out what the forward does.
TEST(NgramDropout, TheRowsAreTheDerivativeOfTheForward) {
  const NgramHash hash{{2, 3}, 13, 1};
  const NgramDropout dropout{0.4, 99};
  Rng rng(3);
  const Segments documents = rng.segments(40, 2);
  const at::Tensor bytes = rng.integer({40}, 0, 4);
  const Tables tables = random_tables(hash, 3, at::kDouble);
  const at::Tensor weights = rng.normal({40, 3});
  const auto objective = [&](const at::Tensor& table) {
    return (ops::ngram_embedding(bytes, documents, tables.bytes, table, hash, nullptr, dropout) * weights)
        .sum()
        .item<double>();
  };
  const at::Tensor gradient =
      dense_rows(backward_rows(bytes, documents, tables, hash, weights, dropout), 26, 3);
  for (int64_t row = 0; row < 26; ++row) {
    at::Tensor above = tables.ngrams.clone(), below = tables.ngrams.clone();
    above[row][1] += 1e-5;
    below[row][1] -= 1e-5;
    EXPECT_NEAR(gradient[row][1].item<double>(), (objective(above) - objective(below)) / 2e-5, 1e-7) << row;
  }
}

TEST(NgramDropout, LooksUpTheShareItSaysInEveryTableAndAnotherWithEachSeed) {
  const NgramHash hash{{3, 4, 5}, 1000, 2};
  Rng rng(5);
  const int64_t T = 20000;
  const at::Tensor bytes = rng.integer({T}, 0, 200);
  const at::Tensor plain = ops::ngram_ids(bytes, one_document(bytes), hash);
  const auto left_out = [&](const NgramDropout& dropout) {
    const at::Tensor ids = ops::ngram_ids(bytes, one_document(bytes), hash, dropout);
    EXPECT_TRUE(((ids == plain) | (ids == -1)).all().item<bool>());
    return (ids == -1).to(at::kDouble);
  };
  const at::Tensor one = left_out({0.25, 11}), other = left_out({0.25, 12});
  EXPECT_TRUE(at::equal(one, left_out({0.25, 11})));
  // Six deviations of a mean of T: independent look-ups stay within.
  const double deviation = std::sqrt(0.25 * 0.75 / T);
  const auto expect_share = [&](const at::Tensor& x, double share, const char* what) {
    EXPECT_NEAR(x.mean().item<double>(), share, 6 * deviation) << what;
  };
  for (int64_t t = 0; t < 6; ++t) {
    expect_share(one.select(1, t), 0.25, "a table");
    expect_share(one.select(1, t) * one.select(1, (t + 1) % 6), 0.0625, "a table with another");
    expect_share(one.select(1, t).slice(0, 1) * one.select(1, t).slice(0, 0, T - 1), 0.0625, "neighbours");
    expect_share(one.select(1, t) * other.select(1, t), 0.0625, "a seed with the next");
  }
}

TEST(NgramEmbedding, TouchedRowsDoNotDependOnThreads) {
  const NgramHash hash{{3, 4, 5, 6}, 997, 1};
  Rng rng(23);
  const at::Tensor bytes = rng.integer({3000}, 0, 4);
  const Segments documents = rng.segments(3000, 4);
  const Tables tables = random_tables(hash, 40);
  const at::Tensor weights = rng.normal({3000, 40}).to(at::kFloat);
  const int before = at::get_num_threads();
  for (const NgramDropout& dropout : {NgramDropout{}, NgramDropout{0.5, 6}}) {
    at::set_num_threads(1);
    const RowGradient alone = backward_rows(bytes, documents, tables, hash, weights, dropout);
    for (const int threads : {2, 5}) {
      at::set_num_threads(threads);
      const RowGradient rows = backward_rows(bytes, documents, tables, hash, weights, dropout);
      EXPECT_TRUE(at::equal(rows.ids, alone.ids) && at::equal(rows.values, alone.values)) << threads;
    }
  }
  at::set_num_threads(before);
}

TEST(NgramEmbedding, NothingIsComputedForAFrozenTable) {
  const NgramHash hash{{3}, 11, 1};
  const at::Tensor bytes = ints({1, 5, 6, 7});
  Tables tables = random_tables(hash, 4);
  tables.bytes.requires_grad_();
  std::vector<RowGradient> gradients;
  ops::ngram_embedding(bytes, one_document(bytes), tables.bytes, tables.ngrams, hash, &gradients)
      .sum()
      .backward();
  EXPECT_TRUE(gradients.empty());
  EXPECT_EQ(tables.bytes.grad().sum().item<float>(), 16);
  // And with the byte table frozen, the rows still come.
  const RowGradient rows =
      backward_rows(bytes, one_document(bytes), random_tables(hash, 4), hash, at::ones({4, 4}));
  EXPECT_EQ(rows.values.sum().item<float>(), 16);
}

TEST(NgramEmbedding, ADocumentDoesNotDependOnItsNeighbours) {
  const NgramHash hash{{3, 8}, 101, 1};
  Rng rng(29);
  const at::Tensor bytes = rng.integer({90}, 0, 40);
  const Tables tables = random_tables(hash, 23);
  const at::Tensor packed = ops::ngram_embedding(bytes, Segments::from_lengths({31, 5, 54}), tables.bytes,
                                                 tables.ngrams, hash, nullptr);
  const at::Tensor middle = bytes.slice(0, 31, 36);
  const at::Tensor alone =
      ops::ngram_embedding(middle, one_document(middle), tables.bytes, tables.ngrams, hash, nullptr);
  EXPECT_TRUE(at::equal(packed.slice(0, 31, 36), alone));
}

RowGradient rows_of(const std::vector<int32_t>& ids, const std::vector<float>& values) {
  const auto count = static_cast<int64_t>(ids.size());
  return {ints(ids), at::tensor(values).unsqueeze(1), at::scalar_tensor(count, at::kInt), count};
}

// Rows that were fetched give what the tables give, forward and backward.
TEST(NgramEmbeddingOfRows, EqualsTheEmbeddingFromTables) {
  const NgramHash hash{{3, 2}, 40, 2};
  const at::Tensor bytes = at::randint(0, kVocabulary, {50}, at::kInt);
  const Segments documents = Segments::from_lengths({20, 30});
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16})
    for (const double probability : {0.0, 0.4, 1.0}) {
      const NgramDropout dropout{probability, 7};
      at::Tensor results[2], byte_gradients[2];
      std::vector<RowGradient> rows[2];
      at::manual_seed(1);
      const at::Tensor byte_table = at::randn({kVocabulary, 6}, type).requires_grad_();
      const at::Tensor table = at::randn({hash.num_tables() * hash.rows, 6}, type).requires_grad_();
      const at::Tensor grad = at::randn({50, 6}, type);
      const at::Tensor ids = ops::ngram_ids(bytes, documents, hash, dropout);
      const ops::DistinctRows distinct = ops::distinct_rows(ids);
      for (int i = 0; i < 2; ++i) {
        results[i] = i == 0
                         ? ops::ngram_embedding(bytes, documents, byte_table, table, hash, &rows[i], dropout)
                         : ops::ngram_embedding_of_rows(bytes, byte_table, ids, distinct,
                                                        table.detach().index_select(0, distinct.ids), hash,
                                                        &rows[i], dropout);
        results[i].backward(grad);
        byte_gradients[i] = byte_table.grad();
        byte_table.mutable_grad() = at::Tensor();
      }
      EXPECT_TRUE(at::allclose(results[0], results[1], 1e-6, 1e-6)) << type << " " << probability;
      EXPECT_TRUE(at::equal(byte_gradients[0], byte_gradients[1]));
      ASSERT_EQ(rows[0].size(), 1u);
      ASSERT_EQ(rows[1].size(), 1u);
      EXPECT_TRUE(at::equal(rows[0][0].ids, rows[1][0].ids));
      EXPECT_TRUE(at::equal(rows[0][0].values, rows[1][0].values));
      EXPECT_TRUE(at::equal(distinct.ids, rows[0][0].ids)) << "what is read is what takes a gradient";
      EXPECT_EQ(distinct.ids.size(0) == 0, probability == 1.0);
    }
  // The tables alone take a gradient, and nothing does.
  const at::Tensor ids = ops::ngram_ids(bytes, documents, hash);
  const ops::DistinctRows distinct = ops::distinct_rows(ids);
  const at::Tensor fetched = at::randn({distinct.ids.size(0), 6}), byte_table = at::randn({kVocabulary, 6});
  std::vector<RowGradient> rows;
  ops::ngram_embedding_of_rows(bytes, byte_table, ids, distinct, fetched, hash, &rows).sum().backward();
  EXPECT_EQ(rows.size(), 1u);
  EXPECT_FALSE(
      ops::ngram_embedding_of_rows(bytes, byte_table, ids, distinct, fetched, hash, nullptr).requires_grad());
  EXPECT_THROW(
      ops::ngram_embedding_of_rows(bytes, byte_table, ids, distinct, fetched.slice(0, 1), hash, nullptr),
      c10::Error);
}

TEST(MergeRows, AddsEqualRowsInTheOrderGiven) {
  const RowGradient merged =
      ops::merge({rows_of({1, 5, 70000}, {1e8f, 2, 3}), RowGradient{}, rows_of({0, 5}, {7, 4}),
                  rows_of({1, 70000}, {-1e8f, 5}), rows_of({1}, {0.25f})});
  EXPECT_TRUE(at::equal(merged.ids, ints({0, 1, 5, 70000})));
  EXPECT_TRUE(at::equal(merged.values.squeeze(1), at::tensor({7.f, 0.25f, 6.f, 8.f})));
  EXPECT_EQ(merged.count.item<int32_t>(), 4);
  EXPECT_EQ(merged.capacity, 4);
}

TEST(MergeRows, OfNothingIsNothingAndOfOneItself) {
  EXPECT_EQ(ops::merge({}).capacity, 0);
  EXPECT_FALSE(ops::merge({RowGradient{}}).ids.defined());
  const RowGradient one = rows_of({3}, {2});
  EXPECT_TRUE(ops::merge({one}).values.is_same(one.values));
}

// Rows beyond `count` are not read.
TEST(MergeRows, LooksAtCountRows) {
  RowGradient padded = rows_of({2, 4, -1}, {1, 2, 100});
  padded.count.fill_(2);
  EXPECT_TRUE(at::equal(ops::merge({padded, rows_of({4}, {3})}).values.squeeze(1), at::tensor({1.f, 5.f})));
}

// The embedding by its definition, in float64; ids behind the documents have their byte's row alone.
at::Tensor plain_embedding(const at::Tensor& bytes, const Segments& documents, const Tables& tables,
                           const NgramHash& hash, const NgramDropout& dropout) {
  const int64_t end = documents.total;
  const at::Tensor text = bytes.slice(0, 0, end), ids = plain_ngram_ids(text, documents, hash);
  const at::Tensor factor = plain_dropout(end, hash.num_tables(), dropout);
  const at::Tensor ngrams = tables.ngrams.to(at::kDouble);
  at::Tensor result = at::embedding(tables.bytes.to(at::kDouble), bytes);
  for (int64_t t = 0; t < hash.num_tables(); ++t)
    result.slice(0, 0, end) += at::embedding(ngrams, ids.select(1, t)) * factor.select(1, t).unsqueeze(1);
  return result;
}

double rounding(at::ScalarType dtype) {
  return dtype == at::kDouble ? 1e-13 : dtype == at::kFloat ? 2e-6 : dtype == at::kHalf ? 1e-3 : 8e-3;
}

// What fills a batch up: no row is read or touched for it.
BLT_TEST_EVERYWHERE(NgramEmbedding, IdsBehindTheDocumentsLookUpNothing) {
  constexpr int64_t kT = 50;
  const NgramHash hash{{3, 1, 2}, 61, 2};
  Rng rng(31);
  const at::Tensor bytes = rng.integer({kT}, 0, 5), there = bytes.to(where.device());
  for (const std::vector<int64_t>& lengths :
       {std::vector<int64_t>{30, 7}, {20, 17, 0, 0}, {49}, {50, 0}, {0, 0}, {}})
    for (const NgramDropout& dropout : {NgramDropout{}, NgramDropout{0.4, 3}})
      for (const at::ScalarType dtype : where.dtypes()) {
        const Segments documents = Segments::from_lengths(lengths, /*allow_empty=*/true);
        const Segments on_device = documents.to(where.device());
        const int64_t end = documents.total;
        const Tables tables = random_tables(hash, 24, dtype);
        const Tables device_tables = {tables.bytes.to(where.device()), tables.ngrams.to(where.device())};
        const std::string name =
            std::string(c10::toString(dtype)) + " dropout " + std::to_string(dropout.probability) + " of " +
            std::to_string(lengths.size()) + " documents, " + std::to_string(end) + " ids";

        const at::Tensor ids = ops::ngram_ids(there, on_device, hash, dropout);
        const at::Tensor stays = plain_dropout(end, hash.num_tables(), dropout).ne(0);
        EXPECT_TRUE(at::equal(
            ids.cpu().slice(0, 0, end),
            plain_ngram_ids(bytes.slice(0, 0, end), documents, hash).masked_fill(stays.logical_not(), -1)))
            << name;
        EXPECT_TRUE((ids.slice(0, end) == -1).all().item<bool>()) << name;

        const at::Tensor expected = plain_embedding(bytes, documents, tables, hash, dropout);
        const ops::DistinctRows distinct = ops::distinct_rows(ids);
        const at::Tensor rows = device_tables.ngrams.index_select(0, distinct.ids);
        for (const at::Tensor& out : {ops::ngram_embedding(there, on_device, device_tables.bytes,
                                                           device_tables.ngrams, hash, nullptr, dropout),
                                      ops::ngram_embedding_of_rows(there, device_tables.bytes, ids, distinct,
                                                                   rows, hash, nullptr, dropout)})
          EXPECT_TRUE(
              at::allclose(out.to(at::kCPU, at::kDouble), expected, rounding(dtype), 8 * rounding(dtype)))
              << name;

        const at::Tensor weights = Rng(37).normal({kT, 24}).to(dtype);
        const RowGradient touched =
            backward_rows(there, on_device, device_tables, hash, weights.to(where.device()), dropout);
        const at::Tensor dense = dense_gradient(bytes.slice(0, 0, end), documents, tables.ngrams, hash,
                                                weights.slice(0, 0, end), dropout);
        EXPECT_EQ(touched.count.item<int64_t>(), dense.ne(0).any(1).sum().item<int64_t>()) << name;
        const double sums = dtype == at::kDouble ? 1e-13 : 2e-5;
        EXPECT_TRUE(
            at::allclose(dense_rows(touched, dense.size(0), 24).to(at::kCPU, at::kDouble), dense, sums, sums))
            << name;
      }
}

TEST(NgramEmbedding, RefusesWhatDoesNotFit) {
  const NgramHash hash{{3, 4}, 10, 1};
  const at::Tensor bytes = ints({1, 2, 39});
  const Segments documents = one_document(bytes);
  const Tables tables = random_tables(hash, 4);
  const auto call = [&](const at::Tensor& x, const at::Tensor& byte_table, const at::Tensor& ngram_table,
                        const NgramHash& h) {
    return ops::ngram_embedding(x, documents, byte_table, ngram_table, h, nullptr);
  };
  EXPECT_MESSAGE(call(bytes.to(at::kLong), tables.bytes, tables.ngrams, hash),
                 "bytes must be [T] int32, got Long");
  EXPECT_MESSAGE(call(ints({1, 2}), tables.bytes, tables.ngrams, hash),
                 "the documents cover 3 ids, but bytes has 2");
  EXPECT_MESSAGE(call(ints({1, 40, 2}), tables.bytes, tables.ngrams, hash),
                 "id 40 is not in the vocabulary of 40");
  EXPECT_MESSAGE(call(ints({1, -1, 2}), tables.bytes, tables.ngrams, hash),
                 "id -1 is not in the vocabulary of 40");
  EXPECT_MESSAGE(call(bytes, tables.bytes[0], tables.ngrams, hash), "byte_table must be floating [V, C]");
  EXPECT_MESSAGE(call(bytes, tables.bytes, at::Tensor(), hash), "2 tables, but ngram_table is undefined");
  EXPECT_MESSAGE(call(bytes, tables.bytes, tables.ngrams, NgramHash{}),
                 "0 tables, but ngram_table is defined");
  EXPECT_MESSAGE(call(bytes, tables.bytes, tables.ngrams.slice(0, 0, 19), hash),
                 "ngram_table must be [20, 4], got [19, 4]");
  EXPECT_MESSAGE(call(bytes, tables.bytes, tables.ngrams.to(at::kDouble), hash), "ngram_table is Double");
  EXPECT_MESSAGE(call(bytes, tables.bytes, tables.ngrams.clone().requires_grad_(), hash),
                 "`gradients` is null");
  EXPECT_MESSAGE(ops::ngram_embedding(bytes, documents, tables.bytes, tables.ngrams, hash, nullptr, {1.5, 0}),
                 "the probability of dropout lies between 0 and 1, got 1.5");
  EXPECT_MESSAGE(ops::ngram_ids(bytes, documents, {{0}, 10, 1}), "group sizes start at 1, got 0");
  EXPECT_MESSAGE(ops::ngram_ids(bytes, documents, {{3}, 0, 1}), "a table has at least 1 row, got 0");
  EXPECT_MESSAGE(ops::ngram_ids(bytes, documents, {{3, 4}, 1 << 30, 1}), "2 tables of 1073741824 rows");
}

}  // namespace
}  // namespace blt
