// What row_adamw_'s arguments must be, wherever it is entered.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/split_mix.h"

namespace blt::ops {

void check_row_adamw(const at::Tensor& table, const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
                     const at::Tensor& ids, const at::Tensor& values, const at::Tensor& count,
                     const at::Tensor& scale, int64_t step);

// Whether a second moment is one number for each row.
inline bool has_row_moments(const at::Tensor& exp_avg_sq) { return exp_avg_sq.dim() == 1; }

// The stream of a step's random bits (ops/stochastic_rounding.h).
inline uint64_t noise_of_step(int64_t seed, int64_t step) {
  return split_mix(static_cast<uint64_t>(seed), static_cast<uint64_t>(step));
}

}  // namespace blt::ops
