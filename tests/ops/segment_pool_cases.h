// Cases of segment_pool.
#pragma once

#include "blt/ops/segment_pool.h"
#include "op_case.h"

namespace blt {

inline OpCase segment_pool_case(int64_t N, int64_t P, int64_t C, Pooling pooling) {
  Rng seeded(11);
  const Segments segments = seeded.segments(N, P);
  OpCase c;
  c.name = std::string(pooling == Pooling::kMax    ? "max"
                       : pooling == Pooling::kMean ? "mean"
                                                   : "min") +
           " N" + std::to_string(N) + " P" + std::to_string(P) + " C" + std::to_string(C);
  c.inputs = [=](Rng& rng) -> Tensors { return {rng.normal({N, C})}; };
  c.op = [=](const Tensors& in) { return ops::segment_pool(in[0], segments.to(in[0].device()), pooling); };
  c.reference = [=](const Tensors& in) {
    std::vector<at::Tensor> rows;
    for (int64_t p = 0; p < P; ++p) {
      const at::Tensor x =
          in[0].slice(0, segments.offsets[p].item<int32_t>(), segments.offsets[p + 1].item<int32_t>());
      rows.push_back(pooling == Pooling::kMax    ? std::get<0>(x.max(0))
                     : pooling == Pooling::kMean ? x.mean(0)
                                                 : std::get<0>(x.min(0)));
    }
    return rows.empty() ? in[0] * 1 : at::stack(rows);
  };
  c.differentiable = {0};
  c.bytes_moved = 4.0 * static_cast<double>((N + P + (pooling == Pooling::kMean ? 0 : P)) * C);
  c.backward_bytes_moved = c.bytes_moved;
  return c;
}

inline std::vector<OpCase> segment_pool_bench_cases() {
  return {segment_pool_case(4096, 910, 256, Pooling::kMax),
          segment_pool_case(32768, 7300, 1024, Pooling::kMax),
          segment_pool_case(32768, 7300, 1024, Pooling::kMean)};
}

}  // namespace blt
