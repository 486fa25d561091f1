// Where the time of a run goes, operator by operator.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace blt::bench {

struct OperatorTime {
  std::string name;
  int64_t calls = 0;
  double seconds = 0;  // CPU time of its thread, without that of the operators that it calls
};

// Calls run() and adds up the operators (and backward nodes) that it goes through, the longest first; "the rest" is what run() spent
// outside all of them. CPU time of the calling thread, so that other work on the machine hardly shows: for one thread alone
// (at::set_num_threads(1)), as what others do for it is not seen.
std::vector<OperatorTime> profile(const std::function<void()>& run);

}  // namespace blt::bench
