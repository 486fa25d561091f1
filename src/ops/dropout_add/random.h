// Which elements dropout leaves out: one 32-bit random number an element, the same on every device.
#pragma once

#include <stdint.h>

#include "ops/split_mix.h"

namespace blt::ops {

struct DropoutKeys {
  uint32_t first;
  uint32_t second;
};

// Of the 2^32 elements from index `block` * 2^32: output `block` of SplitMix64, cut in two.
BLT_RANDOM_FUNCTION DropoutKeys dropout_keys(int64_t seed, uint64_t block) {
  const uint64_t z = split_mix(static_cast<uint64_t>(seed), block);
  return {static_cast<uint32_t>(z), static_cast<uint32_t>(z >> 32)};
}

// MurmurHash3's finaliser. U: uint32_t or a vector of them.
template <class U>
BLT_RANDOM_FUNCTION U mix32(U h) {
  h ^= h >> 16;
  h *= 0x85ebca6b;
  h ^= h >> 13;
  h *= 0xc2b2ae35;
  return h ^ (h >> 16);
}

// Of the element with these low 32 bits of its index.
template <class U>
BLT_RANDOM_FUNCTION U dropout_random(U index, const DropoutKeys& keys) {
  return mix32<U>(mix32<U>(index + keys.first) ^ keys.second);
}

}  // namespace blt::ops
