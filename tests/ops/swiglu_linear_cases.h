// Cases of swiglu_linear.
#pragma once

#include <string>

#include "blt/ops/swiglu_linear.h"
#include "ops/linear_cases.h"

namespace blt {

inline OpCase swiglu_linear_case(int64_t N, int64_t F, int64_t out) {
  OpCase c;
  c.name = "N" + std::to_string(N) + "_F" + std::to_string(F) + "_out" + std::to_string(out);
  c.inputs = [=](Rng& rng) -> Tensors {
    return {rng.normal({N, F}), rng.normal({N, F}), rng.normal({out, F})};
  };
  c.op = [](const Tensors& in) { return ops::swiglu_linear(in[0], in[1], in[2]); };
  c.reference = [](const Tensors& in) { return plain_linear(in[0] * at::sigmoid(in[0]) * in[1], in[2]); };
  c.differentiable = {0, 1, 2};
  c.own_sums = false;
  c.bytes_moved = 4.0 * static_cast<double>(2 * N * F + F * out + N * out);
  c.flops = 2.0 * static_cast<double>(N * F * out);
  c.backward_bytes_moved = 2 * c.bytes_moved;
  c.backward_flops = 2 * c.flops;
  return c;
}

inline std::vector<OpCase> swiglu_linear_bench_cases() {
  return {swiglu_linear_case(4096, 768, 256), swiglu_linear_case(910, 1536, 512)};
}

}  // namespace blt
