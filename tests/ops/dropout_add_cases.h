#pragma once

#include "blt/ops/dropout_add.h"
#include "op_case.h"

namespace blt {

// Whether element i stays, written once more from the header's description.
inline bool dropout_keeps(int64_t seed, uint64_t i, double probability) {
  const auto finalise = [](uint32_t h) {
    h = (h ^ (h >> 16)) * 0x85ebca6bU;
    h = (h ^ (h >> 13)) * 0xc2b2ae35U;
    return h ^ (h >> 16);
  };
  uint64_t key = static_cast<uint64_t>(seed) + ((i >> 32) + 1) * 0x9e3779b97f4a7c15ULL;
  key = (key ^ (key >> 30)) * 0xbf58476d1ce4e5b9ULL;
  key = (key ^ (key >> 27)) * 0x94d049bb133111ebULL;
  key = key ^ (key >> 31);
  const uint32_t once = finalise(static_cast<uint32_t>(i) + static_cast<uint32_t>(key));
  const uint32_t random = finalise(once ^ static_cast<uint32_t>(key >> 32));
  return static_cast<double>(random) >= std::floor(probability * 4294967296.0);
}

// float64, 1 where an element stays and 0 where it does not.
inline at::Tensor dropout_mask(int64_t seed, double probability, at::IntArrayRef sizes) {
  at::Tensor mask = at::empty(sizes, at::kDouble);
  auto* values = mask.data_ptr<double>();
  for (int64_t i = 0; i < mask.numel(); ++i)
    values[i] = dropout_keeps(seed, static_cast<uint64_t>(i), probability) ? 1 : 0;
  return mask;
}

inline OpCase dropout_add_case(int64_t N, int64_t C, double probability, bool residual) {
  constexpr int64_t kSeed = -77;
  const auto elements = static_cast<double>(N * C);
  return {
      .name = "N" + std::to_string(N) + "_C" + std::to_string(C) + "_p" + std::to_string(probability) +
              (residual ? "_residual" : ""),
      .inputs =
          [=](Rng& rng) {
            return residual ? Tensors{rng.normal({N, C}), rng.normal({N, C})} : Tensors{rng.normal({N, C})};
          },
      .op =
          [=](const Tensors& in) {
            return ops::dropout_add(in[0], probability, kSeed, residual ? in[1] : at::Tensor());
          },
      .reference =
          [=](const Tensors& in) {
            const double scale = probability < 1 ? 1 / (1 - probability) : 0;
            const at::Tensor y = in[0] * dropout_mask(kSeed, probability, {N, C}).to(in[0].device()) * scale;
            return residual ? y + in[1] : y;
          },
      .differentiable = residual ? std::vector<size_t>{0, 1} : std::vector<size_t>{0},
      .bytes_moved = (residual ? 12.0 : 8.0) * elements,
      .backward_bytes_moved = 8.0 * elements,
  };
}

inline std::vector<OpCase> dropout_add_bench_cases() {
  return {dropout_add_case(4096, 256, 0.1, true), dropout_add_case(16384, 1024, 0.1, true)};
}

}  // namespace blt
