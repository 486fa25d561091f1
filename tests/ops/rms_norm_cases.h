#pragma once

#include "blt/ops/rms_norm.h"
#include "op_case.h"

namespace blt {

inline OpCase rms_norm_case(int64_t N, int64_t C, double eps = 1e-5) {
  return {
      .name = "N" + std::to_string(N) + "_C" + std::to_string(C),
      .inputs = [=](Rng& rng) -> Tensors {
        return {rng.normal({N, C}) * 3, rng.normal({C}) + 1};
      },
      .op = [=](const Tensors& in) { return ops::rms_norm(in[0], in[1], eps); },
      .reference =
          [=](const Tensors& in) { return in[1] * in[0] * (in[0].square().mean(-1, true) + eps).rsqrt(); },
      .differentiable = {0, 1},
      .bytes_moved = 8.0 * static_cast<double>(N * C),
      .backward_bytes_moved = 12.0 * static_cast<double>(N * C),
  };
}

// Gradients reach the sum by itself and by its norm.
inline OpCase add_rms_norm_case(int64_t N, int64_t C, double eps = 1e-5) {
  OpCase c = rms_norm_case(N, C, eps);
  c.name = "added_" + c.name;
  c.inputs = [=](Rng& rng) -> Tensors {
    return {rng.normal({N, C}) * 3, rng.normal({N, C}), rng.normal({C}) + 1};
  };
  c.op = [=](const Tensors& in) -> Tensors {
    const auto [sum, normed] = ops::add_rms_norm(in[0], in[1], in[2], eps);
    return {sum, normed};
  };
  c.reference = [=](const Tensors& in) -> Tensors {
    const at::Tensor sum = in[0] + in[1];
    return {sum, in[2] * sum * (sum.square().mean(-1, true) + eps).rsqrt()};
  };
  c.differentiable = {0, 1, 2};
  c.bytes_moved = 16.0 * static_cast<double>(N * C);
  c.backward_bytes_moved = 16.0 * static_cast<double>(N * C);
  return c;
}

inline std::vector<OpCase> rms_norm_bench_cases() {
  return {rms_norm_case(4096, 256), add_rms_norm_case(4096, 256), rms_norm_case(32768, 1024),
          add_rms_norm_case(32768, 1024)};
}

}  // namespace blt
