#pragma once

#include "blt/ops/swiglu.h"
#include "op_case.h"

namespace blt {

inline OpCase swiglu_case(int64_t N, int64_t F) {
  return {
      .name = "N" + std::to_string(N) + "_F" + std::to_string(F),
      .inputs = [=](Rng& rng) -> Tensors {
        return {rng.normal({N, F}) * 4, rng.normal({N, F})};
      },
      .op = [](const Tensors& in) { return ops::swiglu(in[0], in[1]); },
      .reference = [](const Tensors& in) { return in[0] * at::sigmoid(in[0]) * in[1]; },
      .differentiable = {0, 1},
      .bytes_moved = 12.0 * static_cast<double>(N * F),
      .backward_bytes_moved = 20.0 * static_cast<double>(N * F),
  };
}

inline std::vector<OpCase> swiglu_bench_cases() { return {swiglu_case(4096, 768), swiglu_case(8192, 4096)}; }

}  // namespace blt
