// What the CPU kernels of ngram_embedding are called with.
#pragma once

#include <stdint.h>

#include "ops/cpu/dispatch.h"

namespace blt::ops {

// What is hashed: NgramHash, laid out for the inner loop.
struct HashPlan {
  const int64_t* sizes;   // group sizes, increasing
  const int32_t* tables;  // the place of each among the tables of one function
  int64_t num_sizes;
  const uint64_t* primes;  // one per function
  int64_t functions;
  uint64_t rows;
  uint64_t seed;           // of dropout
  uint64_t dropped_below;  // look-ups whose random number is smaller are left out; 0: none
};

// Documents are contiguous: positions offsets[d] to offsets[d + 1] of `bytes`. Those behind the last one look up no n-grams.
struct Bytes {
  const int32_t* ids;
  const int32_t* offsets;
  int64_t documents;
};

template <class T>
struct NgramEmbedding {
  Bytes bytes;
  HashPlan plan;
  const T* byte_table;   // [V, columns]
  const T* ngram_table;  // [tables * rows, columns]
  T* out;                // [T, columns]
  int64_t columns;
  T scale;  // of the n-gram table's rows
};

constexpr int64_t kSumColumns = 128;  // a unit's columns

// Adds up rows that lie anywhere: out[target(run)] = sources[first] + ... + sources[last - 1], in this order. A unit is run * parts +
// part, parts = ceil(columns / kSumColumns), and writes its own block of columns.
template <class T>
struct RowSums {
  const T* const* sources;
  const int32_t* runs;     // [count + 1] where each run's sources start
  const int32_t* targets;  // row of each run, or null: its number
  T* out;
  int64_t columns;
};

// -1 where a look-up is left out, or there is none.
BLT_DECLARE_KERNEL(void ngram_ids(const Bytes& bytes, const HashPlan& plan, int32_t* ids, int64_t first,
                                  int64_t last))
// `scratch` has room for two positions' ids.
BLT_DECLARE_KERNEL(template <class T> void ngram_embedding(const NgramEmbedding<T>& a, int32_t* scratch,
                                                           int64_t first, int64_t last))
BLT_DECLARE_KERNEL(template <class T>
                   void sum_rows(const RowSums<T>& a, int64_t first_unit, int64_t last_unit))

}  // namespace blt::ops
