// Random numbers that are counted, on every device.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define BLT_RANDOM_FUNCTION __host__ __device__ static inline
#else
#define BLT_RANDOM_FUNCTION static inline  // each instruction set that includes it has its own
#endif

namespace blt::ops {

// Output number n of SplitMix64.
BLT_RANDOM_FUNCTION uint64_t split_mix(uint64_t seed, uint64_t n) {
  uint64_t z = seed + (n + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace blt::ops
