// Cases of ngram_embedding and row_adamw_.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/embedding.h>

#include <cmath>

#include "blt/ops/ngram_embedding.h"
#include "blt/ops/row_adamw.h"
#include "op_case.h"

namespace blt {

constexpr uint64_t kHashPrimes[] = {1000000007, 5915587277, 1500450271, 3267000013, 5754853343, 4093082899,
                                    9576890767, 3628273133, 2860486313, 5463458053, 3367900313};

// The definition, term by term.
inline at::Tensor plain_ngram_ids(const at::Tensor& bytes, const Segments& documents, const NgramHash& hash) {
  const int64_t T = bytes.size(0), num_sizes = static_cast<int64_t>(hash.sizes.size());
  const at::Tensor positions = documents.positions();
  at::Tensor ids = at::empty({T, hash.num_tables()}, at::kInt);
  for (int64_t t = 0; t < hash.num_tables(); ++t)
    for (int64_t i = 0; i < T; ++i) {
      const int64_t n = hash.sizes[t % num_sizes], before = positions[i].item<int32_t>();
      uint64_t h = 0, power = 1;
      for (int64_t j = n - 1; j >= 0; --j) {  // the id j places back, oldest first
        if (j <= before) h += static_cast<uint64_t>(int64_t{bytes[i - j].item<int32_t>()}) * power;
        power *= kHashPrimes[t / num_sizes % 11];
      }
      const int64_t rest = static_cast<int64_t>(h) % hash.rows;
      ids[i][t] = static_cast<int32_t>(t * hash.rows + (rest < 0 ? rest + hash.rows : rest));
    }
  return ids;
}

// SplitMix64 as its paper writes it: a generator that is stepped.
inline std::vector<uint64_t> plain_split_mix(uint64_t seed, int64_t count) {
  std::vector<uint64_t> numbers;
  for (uint64_t state = seed; count-- > 0;) {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    numbers.push_back(z ^ (z >> 31));
  }
  return numbers;
}

// [T, tables] float64: what each look-up is multiplied by.
inline at::Tensor plain_dropout(int64_t T, int64_t tables, const NgramDropout& dropout) {
  at::Tensor factor = at::zeros({T, tables}, at::kDouble);
  double* f = factor.data_ptr<double>();
  for (const uint64_t number : plain_split_mix(static_cast<uint64_t>(dropout.seed), T * tables))
    *f++ = std::ldexp(static_cast<double>(number), -64) < dropout.probability ? 0 : dropout.scale();
  return factor;
}

inline std::string describe(const NgramHash& hash) {
  std::string result =
      "rows" + std::to_string(hash.rows) + " functions" + std::to_string(hash.functions) + " n";
  for (const int64_t size : hash.sizes) result += std::to_string(size) + "_";
  return result;
}

// Inputs: byte table, n-gram table (not differentiated here: its gradient are rows), ids.
inline OpCase ngram_embedding_case(int64_t T, int64_t D, int64_t C, const NgramHash& hash,
                                   const NgramDropout& dropout = {}) {
  constexpr int64_t kIds = 30;
  Rng seeded(13);
  const Segments documents = seeded.segments(T, D);
  const at::Tensor bytes = seeded.integer({T}, 0, kIds);
  const at::Tensor ids = hash.num_tables() > 0 && T < 1000 ? plain_ngram_ids(bytes, documents, hash)
                                                           : ops::ngram_ids(bytes, documents, hash);
  OpCase c;
  c.name = "T" + std::to_string(T) + " D" + std::to_string(D) + " C" + std::to_string(C) + " " +
           describe(hash) + (dropout.probability > 0 ? " dropout" + std::to_string(dropout.probability) : "");
  c.inputs = [=](Rng& rng) -> Tensors {
    Tensors inputs{rng.normal({kIds, C}), at::Tensor(), bytes};
    if (hash.num_tables() > 0) inputs[1] = rng.normal({hash.num_tables() * hash.rows, C});
    return inputs;
  };
  c.op = [=](const Tensors& in) {
    return ops::ngram_embedding(in[2], documents.to(in[0].device()), in[0], in[1], hash, nullptr, dropout);
  };
  const at::Tensor factor = plain_dropout(T, hash.num_tables(), dropout);
  c.reference = [=](const Tensors& in) {
    at::Tensor total = at::embedding(in[0], bytes);
    for (int64_t t = 0; t < hash.num_tables(); ++t)
      total = total + at::embedding(in[1], ids.select(1, t)) * factor.select(1, t).unsqueeze(1);
    return total;
  };
  c.differentiable = {0};
  c.bytes_moved = 4.0 * static_cast<double>(T * C * (2 + hash.num_tables()));
  c.backward_bytes_moved = 4.0 * static_cast<double>((T + kIds) * C);  // of the byte table
  return c;
}

inline std::vector<OpCase> ngram_embedding_bench_cases() {
  return {ngram_embedding_case(4096, 4, 256, {{3, 4, 5, 6, 7, 8}, 50000, 1})};
}

// The backward: a gradient and ids to touched rows, given back as a dense table. Data decides the number of rows, so there is no meta
// version to compare with.
inline at::Tensor dense_rows(const RowGradient& rows, int64_t num_rows, int64_t C) {
  at::Tensor table = at::zeros({num_rows, C}, rows.values.options());
  const int64_t count = rows.count.item<int32_t>();
  return table.index_copy_(0, rows.ids.slice(0, 0, count).to(at::kLong), rows.values.slice(0, 0, count));
}

// For the benchmark: T positions that touch random rows of every table.
inline std::vector<OpCase> touched_rows_bench_cases() {
  static constexpr int64_t kT = 4096, kTables = 6, kRows = 50000, kC = 256;
  OpCase c;
  c.name = "T4096 C256 rows50000 x6";
  c.inputs = [](Rng& rng) -> Tensors {
    return {rng.normal({kT, kC}),
            rng.integer({kT, kTables}, 0, kRows) + at::arange(kTables, at::kInt) * int{kRows}};
  };
  c.op = [](const Tensors& in) {
    using Signature =
        std::tuple<at::Tensor, at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, int64_t);
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("blt::touched_rows", "").typed<Signature>();
    const auto [ids, values, count] = op.call(in[0], in[1], kRows);
    return Tensors{ids, values, count};
  };
  c.bytes_moved = 4.0 * kT * kC * (1 + kTables);  // nearly every row is another one
  return {c};
}

// For the benchmark, which changes its inputs: the table of the shape `small` (bench/shapes.cpp), a step's touched rows, and each kind of state beside the others.
inline std::vector<OpCase> row_adamw_bench_cases() {
  static constexpr int64_t kRows = 300000, kC = 256, kTouched = 24000;
  std::vector<OpCase> cases;
  for (const bool touched_only : {false, true})
    for (const at::ScalarType moments : {at::kFloat, at::kBFloat16})
      for (const bool by_row : {false, true}) {
        OpCase c;
        c.name = std::string("R300000 C256 touched24000 ") + (touched_only ? "lazy " : "exact ") +
                 (moments == at::kFloat ? "float32" : "bfloat16") + (by_row ? " row" : "");
        c.dtypes = {at::kFloat};
        // Moments in bfloat16 travel as their bits: other floating inputs are converted.
        const at::ScalarType bits = moments == at::kFloat ? at::kFloat : at::kShort;
        c.inputs = [=](Rng& rng) -> Tensors {
          return {at::zeros({kRows, kC}),
                  at::zeros({kRows, kC}, bits),
                  by_row ? at::zeros({kRows}) : at::zeros({kRows, kC}, bits),
                  at::arange(0, kRows, kRows / kTouched, at::kInt).slice(0, 0, kTouched).contiguous(),
                  rng.normal({kTouched, kC}),
                  at::scalar_tensor(kTouched, at::kInt),
                  at::ones({})};
        };
        c.op = [=](const Tensors& in) {
          at::Tensor table = in[0], exp_avg = in[1].view(moments),
                     exp_avg_sq = by_row ? in[2] : in[2].view(moments);
          const RowGradient rows{in[3], in[4], in[5], kTouched};
          ops::row_adamw_(table, exp_avg, exp_avg_sq, rows, in[6],
                          {.learning_rate = 1e-4, .touched_only = touched_only});
          return table;
        };
        const double of_element =
            8 + 2.0 * static_cast<double>(at::elementSize(moments)) * (by_row ? 1 : 2);  // read and written
        const int64_t moved = touched_only ? kTouched : kRows;
        c.bytes_moved =
            (of_element * kC + (by_row ? 8 : 0)) * static_cast<double>(moved) + 4.0 * kTouched * kC;
        cases.push_back(std::move(c));
      }
  return cases;
}

}  // namespace blt
