// The memory of the process: how much it has, and how it keeps what it has freed.
#pragma once

#include <cstdint>

namespace blt {

struct ProcessMemory {
  int64_t resident = 0;  // bytes in memory now
  int64_t peak = 0;      // the most since the process started
};
// Of this process; 0 where the system does not say (/proc/self/status). Thread-safe.
ProcessMemory process_memory();

// Keeps freed memory for the next allocation instead of giving it back to the system. A training step frees what the next one asks
// for again, and pages that the system hands out anew are cleared first: that is a twentieth of the CPU time of a step. For programs,
// at the start of main: it changes the whole process. Does nothing where the C library is not glibc. Memory then does not shrink before
// the process ends. LibTorch's tensors on the CPU come from blocks that a tensor of the same size can take again, which lowers the peak
// (docs/results.md).
void keep_freed_memory();

}  // namespace blt
