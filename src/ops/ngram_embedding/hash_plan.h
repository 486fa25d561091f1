// NgramHash as schemas take it, checked.
#pragma once

#include <ATen/core/Tensor.h>

#include "blt/ops/ngram_embedding.h"

namespace blt::ops {

// From a schema's arguments. Throws c10::Error as the public header says.
NgramHash checked_hash(at::IntArrayRef sizes, int64_t rows, int64_t functions);
NgramDropout checked_dropout(double probability, int64_t seed);

void check_bytes(const char* op, const at::Tensor& bytes);
void check_tables(const at::Tensor& bytes, const at::Tensor& byte_table, const at::Tensor& ngram_table,
                  const NgramHash& hash);

}  // namespace blt::ops
