// Rounding to bfloat16 that is right on average, the same bits on every device.
//
// What lies between two bfloat16 numbers becomes the upper one as often as it is near to it: the expected value is the number itself, so
// changes that are smaller than half a step of bfloat16 add up instead of being lost. The random bits are counted, not drawn: they follow
// from a stream, a row and a column, whoever asks in whatever order.
//
// Source: Gupta et al., Deep Learning with Limited Numerical Precision (arXiv:1502.02551); the mixing constants are those of
// Wellons, Prospecting for Hash Functions (2018).
#pragma once

#include <stdint.h>
#include <string.h>

#include "ops/split_mix.h"

namespace blt::ops {

// The stream of a step.
BLT_RANDOM_FUNCTION uint64_t noise_of_step(uint64_t seed, uint64_t step) { return split_mix(seed, step); }

struct RowNoise {
  uint32_t start, twist;
};

BLT_RANDOM_FUNCTION RowNoise row_noise(uint64_t stream, int64_t row) {
  const uint64_t key = split_mix(stream, static_cast<uint64_t>(row));
  return {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
}

// 32 bits, of which a rounding takes 16. Products of 32 bits alone, which vector units have. Rows that start at the same place
// part where they twist.
BLT_RANDOM_FUNCTION uint32_t noise_at(RowNoise row, uint32_t column) {
  uint32_t x = row.start + column * 0x9e3779b9u;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x ^= row.twist;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// The bits of a bfloat16. noise: uniform below 2^16. What is a bfloat16 already stays, zeros and infinities too; what is finite stays so.
BLT_RANDOM_FUNCTION uint16_t round_to_bfloat16(float x, uint32_t noise) {
  constexpr uint32_t kLargest = 0x7f7f0000;  // finite bfloat16
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return static_cast<uint16_t>(((bits & 0x7fffffffu) >= kLargest ? bits : bits + noise) >> 16);
}

// The nearest bfloat16, of two that are as near the even one: as everybody rounds who does not say how.
BLT_RANDOM_FUNCTION uint16_t nearest_bfloat16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  const uint32_t nearest = bits + 0x7fffu + (bits >> 16 & 1);
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : nearest >> 16);
}

BLT_RANDOM_FUNCTION float widen_bfloat16(uint16_t from) {
  const uint32_t bits = static_cast<uint32_t>(from) << 16;
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

}  // namespace blt::ops
