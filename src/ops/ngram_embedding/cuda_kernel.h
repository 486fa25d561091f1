// What the CUDA kernels of ngram_ids and ngram_embedding are launched with.
#pragma once

#include "ops/cuda/storage.h"

namespace blt::ops::BLT_DEVICE {

constexpr int kMaxSizes = 32;  // group sizes
constexpr int kMaxTables = 8192;
constexpr int kNumPrimes = 11;

// Documents are contiguous: positions offsets[d] to offsets[d + 1] of `bytes`. Those behind the last one look up no n-grams.
struct NgramIds {
  const int32_t* bytes;
  const int32_t* offsets;
  int64_t documents, positions;
  int num_sizes, functions;
  int32_t sizes[kMaxSizes];   // increasing
  int32_t tables[kMaxSizes];  // the place of each among the tables of one function
  uint64_t primes[kNumPrimes];
  int64_t rows;            // of a table
  uint64_t seed;           // of dropout
  uint64_t dropped_below;  // look-ups whose random number is smaller are left out; 0: none
};

struct NgramEmbedding {
  NgramIds ids;
  const void* byte_table;   // [V, columns]
  const void* ngram_table;  // [tables * rows, columns]
  void* out;                // [positions, columns]
  int64_t columns;
  float scale;  // of the n-gram table's rows
};

// There is at least one position, and one table or one column.
void launch_ngram_ids(const NgramIds& a, int32_t* ids, Stream stream);
void launch_ngram_embedding(Storage storage, const NgramEmbedding& a, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
