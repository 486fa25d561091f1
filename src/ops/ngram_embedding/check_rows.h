// What arguments of the operators on table rows must be, wherever they are entered.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

void check_touched_rows(const at::Tensor& grad, const at::Tensor& ids, int64_t rows);
void check_byte_table_gradient(const at::Tensor& grad, const at::Tensor& bytes, int64_t vocabulary);
void check_merge_rows(at::TensorList ids, at::TensorList values, at::TensorList counts);
void check_rows_norm(const at::Tensor& values, const at::Tensor& count);

}  // namespace blt::ops
