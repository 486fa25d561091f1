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

inline std::vector<OpCase> rms_norm_bench_cases() {
  return {rms_norm_case(4096, 256), rms_norm_case(32768, 1024)};
}

}  // namespace blt
