// Cases of linear.
#pragma once

#include <string>

#include "blt/ops/linear.h"
#include "op_case.h"

namespace blt {

// x [N, in], weight [out, in]: x weight^T without a matrix library.
inline at::Tensor plain_linear(const at::Tensor& x, const at::Tensor& weight) {
  return (x.unsqueeze(1) * weight.unsqueeze(0)).sum(2);
}

// What one product of a linear layer costs forward, and its two gradients backward.
inline void set_linear_bound(OpCase& c, int64_t N, int64_t in_features, int64_t out_features) {
  c.bytes_moved = 4.0 * static_cast<double>(N * in_features + in_features * out_features + N * out_features);
  c.flops = 2.0 * static_cast<double>(N * in_features * out_features);
  c.backward_bytes_moved = 2 * c.bytes_moved;
  c.backward_flops = 2 * c.flops;
}

inline OpCase linear_case(int64_t N, int64_t in_features, int64_t out_features) {
  OpCase c;
  c.name =
      "N" + std::to_string(N) + "_in" + std::to_string(in_features) + "_out" + std::to_string(out_features);
  c.inputs = [=](Rng& rng) -> Tensors {
    return {rng.normal({N, in_features}), rng.normal({out_features, in_features})};
  };
  c.op = [](const Tensors& in) { return ops::linear(in[0], in[1]); };
  c.reference = [](const Tensors& in) { return plain_linear(in[0], in[1]); };
  c.differentiable = {0, 1};
  c.own_sums = false;
  set_linear_bound(c, N, in_features, out_features);
  return c;
}

// The layers of the shapes `small` and `tiny`.
inline std::vector<OpCase> linear_bench_cases() {
  return {linear_case(4096, 256, 256), linear_case(4096, 256, 768), linear_case(4096, 768, 256),
          linear_case(910, 512, 512),  linear_case(910, 512, 1536), linear_case(4096, 64, 64),
          linear_case(910, 128, 512)};
}

}  // namespace blt
