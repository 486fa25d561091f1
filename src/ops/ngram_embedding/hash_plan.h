// NgramHash as schemas take it, checked.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "blt/ops/ngram_embedding.h"

namespace blt::ops {

// Of the hash functions, in their order, again from the first after the last.
constexpr uint64_t kPrimes[] = {1000000007, 5915587277, 1500450271, 3267000013, 5754853343, 4093082899,
                                9576890767, 3628273133, 2860486313, 5463458053, 3367900313};

// Of 2^64 equally likely numbers, how many are smaller than the first that is not dropped.
uint64_t dropped_below(double probability);

// From a schema's arguments. Throws c10::Error as the public header says.
NgramHash checked_hash(at::IntArrayRef sizes, int64_t rows, int64_t functions);
NgramDropout checked_dropout(double probability, int64_t seed);

// The sizes' indices, smaller sizes first: a hash goes on from that of the next smaller n-gram.
std::vector<int32_t> by_size(const NgramHash& hash);

void check_bytes(const char* op, const at::Tensor& bytes, const at::Tensor& offsets);
void check_tables(const at::Tensor& bytes, const at::Tensor& byte_table, const at::Tensor& ngram_table,
                  const NgramHash& hash);

}  // namespace blt::ops
