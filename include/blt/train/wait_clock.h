// How long a device waits for transfers between ranks.
#pragma once

#include <c10/core/Device.h>

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

namespace blt {

// What was waited from one WaitClock::take() to the next. Copies share what they hold.
class Waits {
 public:
  // Of what the device has come past; it must have come past all of it (a step's flags, read on the host, say so), and is not waited for.
  double seconds() const;

 private:
  friend class WaitClock;
  struct Stretch;  // of a device's stream, between two events

  std::chrono::duration<double> of_host_ = {};
  std::vector<std::shared_ptr<const Stretch>> of_device_;
};

// Measures the CPU by its clock; another device by events in its stream on both sides of a wait, which the host neither waits for nor reads
// before somebody asks: there the host's own waits do not count, they are hidden behind what the device computes. Not thread-safe.
class WaitClock {
 public:
  explicit WaitClock(c10::Device device) : device_(device) {}

  // Calls wait(), which waits for a transfer of tensors on `where`, or has this thread's current stream of that device wait.
  void time(c10::Device where, const std::function<void()>& wait);
  // What was waited since the last call.
  Waits take();

 private:
  c10::Device device_;
  Waits waits_;
};

}  // namespace blt
