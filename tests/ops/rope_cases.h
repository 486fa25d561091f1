#pragma once

#include <cmath>

#include "blt/ops/rope.h"
#include "op_case.h"

namespace blt {

// Angles of positions 0 to M - 1, [M, E / 2] float64.
inline at::Tensor rope_angles(int64_t M, int64_t E, double theta = 10000) {
  const at::Tensor exponent = at::arange(0, E, 2, at::kDouble) / static_cast<double>(E);
  return at::arange(M, at::kDouble).unsqueeze(1) * at::exp(-exponent * std::log(theta)).unsqueeze(0);
}

// T rows at random positions of a table of M.
inline OpCase rope_case(int64_t T, int64_t H, int64_t E, int64_t M) {
  // As the tables are given: float32 unless x is float64. The reference takes what the op took.
  const auto table = [](const at::Tensor& x, const at::Tensor& like) {
    return x.to(like.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  };
  return {
      .name = "T" + std::to_string(T) + "_H" + std::to_string(H) + "_E" + std::to_string(E),
      .inputs = [=](Rng& rng) -> Tensors {
        const at::Tensor angles = rope_angles(M, E);
        return {rng.normal({T, H, E}), rng.integer({T}, 0, M), angles.cos(), angles.sin()};
      },
      .op =
          [=](const Tensors& in) {
            return ops::rope(in[0], in[1], table(in[2], in[0]), table(in[3], in[0]));
          },
      .reference =
          [=](const Tensors& in) {
            const at::Tensor rows = in[1].to(at::kLong);
            const at::Tensor c = in[2].index_select(0, rows).unsqueeze(1),
                             s = in[3].index_select(0, rows).unsqueeze(1);
            const at::Tensor even = in[0].slice(2, 0, E, 2), odd = in[0].slice(2, 1, E, 2);
            return at::stack({even * c - odd * s, even * s + odd * c}, -1).reshape({T, H, E});
          },
      .differentiable = {0},
      .bytes_moved = 8.0 * static_cast<double>(T * H * E),
      .backward_bytes_moved = 8.0 * static_cast<double>(T * H * E),
  };
}

// The same in the memory of a product, as attention uses it.
inline OpCase rope_in_place_case(int64_t T, int64_t H, int64_t E, int64_t M) {
  OpCase c = rope_case(T, H, E, M);
  c.name = "in_place_" + c.name;
  c.op = [](const Tensors& in) {
    const auto type = in[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    return ops::rope_in_place(in[0] * 1, in[1], in[2].to(type), in[3].to(type));
  };
  return c;
}

inline std::vector<OpCase> rope_bench_cases() {
  return {rope_case(4096, 4, 64, 1024), rope_case(32768, 16, 64, 8192)};
}

}  // namespace blt
