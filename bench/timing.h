// Seconds, and what is left of several of them.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

namespace blt::bench {

// How long f() takes, in seconds.
template <class F>
double seconds(const F& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The middle one of some (at least one) values.
inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace blt::bench
