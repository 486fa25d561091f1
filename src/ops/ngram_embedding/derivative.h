// The derivative of n-gram embeddings, wherever their rows came from.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "blt/ops/ngram_embedding.h"

namespace blt::ops {

// grad [T, C] of the sums -> [vocabulary, C] of the byte table.
at::Tensor byte_table_gradient(const at::Tensor& grad, const at::Tensor& bytes, int64_t vocabulary);
// -> the rows of the fused table that ids [T, num_tables], of ngram_ids() with `dropout`, name; `rows` a table.
RowGradient row_gradient(const at::Tensor& grad, const at::Tensor& ids, int64_t rows,
                         const NgramDropout& dropout);

}  // namespace blt::ops
