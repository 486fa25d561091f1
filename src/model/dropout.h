// Dropout of a module: off unless it trains, its seed from LibTorch's generator of random numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace blt {

// The next number of the default generator, which the trainer seeds anew for every step. Thread-safe.
int64_t random_seed();

// residual + x, or x alone when residual is undefined, with dropout of x where `probability` is not 0.
at::Tensor module_dropout(const at::Tensor& x, double probability, bool training,
                          const at::Tensor& residual = {});

}  // namespace blt
