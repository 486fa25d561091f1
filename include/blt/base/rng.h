// Named streams of random numbers that are the same on every machine and can be stored.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

namespace blt {

// xoshiro256++ (Blackman and Vigna, 2021), seeded by splitmix64 from the seed and the name: streams of other
// names or seeds are independent. Cheap to copy; a copy goes on by itself. Not thread-safe: one stream, one
// owner.
class Rng {
 public:
  using State = std::array<uint64_t, 4>;

  Rng(uint64_t seed, std::string_view name);
  explicit Rng(const State& state) : state_(state) {}

  uint64_t next();                               // 64 uniform bits
  uint64_t below(uint64_t n);                    // uniform in 0 .. n-1, without bias; n > 0
  double uniform();                              // uniform in [0, 1), a multiple of 2^-53
  const State& state() const { return state_; }  // Rng(state()) goes on where this one is

  // A uniform permutation of a random access range (Fisher and Yates).
  template <class Range>
  void shuffle(Range& range) {
    for (uint64_t i = range.size(); i > 1; --i) {
      using std::swap;
      swap(range[i - 1], range[below(i)]);
    }
  }

 private:
  State state_;
};

}  // namespace blt
