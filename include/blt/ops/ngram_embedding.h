// Byte embeddings plus hashed n-gram embeddings, with the gradient of the tables as touched rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "blt/batch.h"

namespace blt {

// Which n-grams are hashed, into how many rows. `functions` x `sizes` tables of `rows` rows lie one after
// another in one fused table, function-major: table f * sizes.size() + s holds rows [t * rows, (t + 1) *
// rows).
struct NgramHash {
  std::vector<int64_t> sizes;  // group sizes n, each at least 1; empty: no n-gram tables
  int64_t rows = 0;            // rows per table
  int64_t functions = 1;       // hash functions, each with its own prime (cycling after 11)

  int64_t num_tables() const { return static_cast<int64_t>(sizes.size()) * functions; }
};

// Which look-ups are left out, for training on little text: each position goes without each table's row with this
// probability, independently. The random number of a look-up follows from the seed, its position in the batch and its table alone: output
// number position * num_tables + table of SplitMix64.
//
// Source: Steele, Lea and Flood, Fast splittable pseudorandom number generators (OOPSLA 2014), figure 13.
struct NgramDropout {
  double probability = 0.0;  // in [0, 1]
  int64_t seed = 0;

  double scale() const { return probability < 1 ? 1 / (1 - probability) : 0; }  // of the rows that stay
};

// The gradient of a table as the rows that were touched: autograd cannot carry a count that stays on the
// device.
struct RowGradient {
  at::Tensor ids;  // [capacity] int32; the first `count` are distinct, in increasing order
  at::Tensor
      values;  // [capacity, C] float32 (float64 for float64 tables): the gradient of each of those rows; what is behind them is not set
  at::Tensor count;      // [] int32, on the device of the table
  int64_t capacity = 0;  // known on the host; on the CPU equal to count
};

namespace ops {

//   bytes      [T] int32 ids
//   documents  of these ids; they may end before T: ids behind them look up nothing (Batch::text_documents). Some may be empty.
//   returns    [T, num_tables] int32: row of the fused table for every position and table, -1 where nothing is looked up or it is left out
//
// The n-gram that ends at a position, hashed as sum_t x[i - n + 1 + t] * p^t in wrapping int64, modulo `rows`
// (floored). Windows start anew in each document and are filled with 0 before its start. Throws c10::Error on
// a wrong rank or dtype, on sizes or rows below 1, on a probability that is none, and when the fused table would have 2^31 rows or more.
//
// Source: Byte Latent Transformer (arXiv:2412.09871), section 3.2.1, equations 2 to 4 and appendix 12.
at::Tensor ngram_ids(const at::Tensor& bytes, const Segments& documents, const NgramHash& hash,
                     const NgramDropout& dropout = {});

//   bytes        [T] int32 ids in [0, V)
//   byte_table   [V, C] floating
//   ngram_table  [num_tables * rows, C] same dtype and device; undefined when there are no tables
//   gradients    where the backward appends the touched rows of ngram_table, merged and sorted by row; may be
//   null when gradients
//                are off. Must outlive the backward.
//   documents    as above
//   returns      [T, C]: byte_table[bytes[i]] + sum over tables of ngram_table[id]; with dropout over those that stay, times its scale; of an
//                id behind the documents, byte_table[bytes[i]] alone
//
// Differentiable in byte_table (a dense gradient) and, through `gradients`, in ngram_table: no dense table is
// ever made, and rows that were looked up only where they were left out are not touched. Sums are float32 (float64 for float64 tables).
// Deterministic; without dropout a row's result does not depend on the other documents, bit for bit. Throws
// c10::Error on a wrong rank, dtype, device or width, on a probability that is none, and (CPU) on an id outside the vocabulary.
at::Tensor ngram_embedding(const at::Tensor& bytes, const Segments& documents, const at::Tensor& byte_table,
                           const at::Tensor& ngram_table, const NgramHash& hash,
                           std::vector<RowGradient>* gradients, const NgramDropout& dropout = {});

// Which rows of the tables look-ups read: what to fetch where the tables are not all at hand.
struct DistinctRows {
  at::Tensor ids;  // [N] int32: each row once, in increasing order
  at::Tensor
      places;  // [num_tables, T] int64: where in `ids` each look-up's row is, -1 where there is none or it is left out
  bool all_stay = true;  // whether no place is -1
};
//   ids  [T, num_tables] of ngram_ids()
DistinctRows distinct_rows(const at::Tensor& ids);

// ngram_embedding() with the rows that it reads instead of the tables.
//   ids      [T, num_tables] of ngram_ids() with the same dropout, `distinct` of them
//   rows     [N, C] those of distinct.ids, of the type and device of byte_table
//   returns, gradients and errors as there: null where the tables take no gradient. Sums in the same order, in float32; 16-bit types and
//   GPUs as well.
at::Tensor ngram_embedding_of_rows(const at::Tensor& bytes, const at::Tensor& byte_table,
                                   const at::Tensor& ids, const DistinctRows& distinct,
                                   const at::Tensor& rows, const NgramHash& hash,
                                   std::vector<RowGradient>* gradients, const NgramDropout& dropout = {});

// Adds gradients of the same table: the union of the rows, values of equal rows added in the order given. An
// empty list gives a RowGradient with capacity 0 and undefined tensors.
RowGradient merge(const std::vector<RowGradient>& gradients);

// [] of the values' type: the Euclidean norm of the first `count` rows; on a device without asking it how many there are.
at::Tensor norm(const RowGradient& gradient);

}  // namespace ops
}  // namespace blt
