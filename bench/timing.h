// Seconds, and what is left of several of them.
#pragma once

#include <time.h>

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

// CPU time of the calling thread so far: other work on the machine hardly changes it.
inline double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The CPU time that f() takes of the calling thread, in seconds.
template <class F>
double cpu_seconds(const F& f) {
  const double start = thread_seconds();
  f();
  return thread_seconds() - start;
}

// The middle one of some (at least one) values.
inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace blt::bench
