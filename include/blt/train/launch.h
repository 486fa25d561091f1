// Starts ranks on this machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace blt {

// Runs this program with `arguments` (without its name) as `ranks` processes that find each other by their environment (rendezvous.h), and
// waits for them. Each has its share of the processors (OMP_NUM_THREADS, where it is not set). When one fails, the others end within
// seconds. A stop signal goes to all; a rank gets it when it calls catch_stop_signals() (base/signals.h), not before. Returns an exit code (base/tool.h): that of the first rank that failed, else kStopped where they
// stopped, else kDone. Throws blt::Error where a rank was killed, or cannot be started; every other failure is told by the rank that had
// it. Changes how this process handles signals; call it before there are threads.
int launch(int64_t ranks, const std::vector<std::string>& arguments);

}  // namespace blt
