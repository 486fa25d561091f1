#include "blt/base/rng.h"

#include <bit>

namespace blt {

namespace {

uint64_t splitmix64(uint64_t& x) {
  uint64_t z = (x += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

Rng::Rng(uint64_t seed, std::string_view name) {
  uint64_t x = seed;
  x = splitmix64(x) ^
      fnv1a(name);  // mixed first: neighbouring seeds do not meet under names that differ by little
  for (uint64_t& word : state_) word = splitmix64(x);
}

uint64_t Rng::next() {
  auto& s = state_;
  const uint64_t result = std::rotl(s[0] + s[3], 23) + s[0];
  const uint64_t t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = std::rotl(s[3], 45);
  return result;
}

uint64_t Rng::below(uint64_t n) {
  const uint64_t excess =
      (0 - n) % n;  // 2^64 mod n: as many draws are thrown away, so that n divides the rest
  uint64_t draw = next();
  while (draw < excess) draw = next();
  return draw % n;
}

double Rng::uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

}  // namespace blt
