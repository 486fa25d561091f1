// What row_adamw_'s arguments must be, wherever it is entered.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace blt::ops {

void check_row_adamw(const at::Tensor& table, const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
                     const at::Tensor& ids, const at::Tensor& values, const at::Tensor& count,
                     const at::Tensor& scale, const at::Tensor& step,
                     const std::optional<at::Tensor>& rounded);

// Whether a second moment is one number for each row.
inline bool has_row_moments(const at::Tensor& exp_avg_sq) { return exp_avg_sq.dim() == 1; }

}  // namespace blt::ops
