// Cases of packed_linear.
#pragma once

#include <string>

#include "blt/ops/packed_linear.h"
#include "op_case.h"

namespace blt {

inline OpCase packed_linear_case(int64_t N, int64_t in_features, int64_t out_features) {
  OpCase c;
  c.name =
      "N" + std::to_string(N) + " in" + std::to_string(in_features) + " out" + std::to_string(out_features);
  c.inputs = [=](Rng& rng) -> Tensors {
    return {rng.normal({N, in_features}), rng.normal({out_features, in_features})};
  };
  c.op = [](const Tensors& in) { return ops::packed_linear(in[0], ops::pack_weight(in[1])); };
  c.reference = [](const Tensors& in) { return in[0].matmul(in[1].t()); };
  c.bytes_moved = 4.0 * (N * in_features + in_features * out_features + N * out_features);
  c.flops = 2.0 * N * in_features * out_features;
  return c;
}

// The layers of the entropy model of the shape `small`, and of the released one.
inline std::vector<OpCase> packed_linear_bench_cases() {
  return {packed_linear_case(4096, 256, 256), packed_linear_case(4096, 256, 768),
          packed_linear_case(4096, 768, 2048), packed_linear_case(1, 768, 2048)};
}

}  // namespace blt
