// Which elements dropout leaves out: one 32-bit random number an element, the same on every device. (Static: kernel files are compiled once per
// instruction set, and the linker would keep one copy of a function that they share.)
#pragma once

#include <stdint.h>

namespace blt::ops {

struct DropoutKeys {
  uint32_t first;
  uint32_t second;
};

// Of the 2^32 elements from index `block` * 2^32: output `block` of SplitMix64, cut in two.
static inline DropoutKeys dropout_keys(int64_t seed, uint64_t block) {
  uint64_t z = static_cast<uint64_t>(seed) + (block + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  z ^= z >> 31;
  return {static_cast<uint32_t>(z), static_cast<uint32_t>(z >> 32)};
}

// Random numbers below this leave their element out: probability * 2^32, and so 2^32 itself for a probability of 1.
static inline uint64_t dropped_below(double probability) { return static_cast<uint64_t>(probability * 0x1p32); }

// MurmurHash3's finaliser. U: uint32_t or a vector of them.
template <class U>
static constexpr U mix32(U h) {
  h ^= h >> 16;
  h *= 0x85ebca6b;
  h ^= h >> 13;
  h *= 0xc2b2ae35;
  return h ^ (h >> 16);
}

// Of the element with these low 32 bits of its index.
template <class U>
static constexpr U dropout_random(U index, const DropoutKeys& keys) {
  return mix32<U>(mix32<U>(index + keys.first) ^ keys.second);
}

}  // namespace blt::ops
