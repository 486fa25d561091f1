#include "blt/train/wait_clock.h"

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

namespace blt {

struct Waits::Stretch {
  explicit Stretch(c10::DeviceType type)
      : begin(type, c10::EventFlag::BACKEND_DEFAULT), end(type, c10::EventFlag::BACKEND_DEFAULT) {}
  c10::Event begin, end;  // with their times
};

double Waits::seconds() const {
  double milliseconds = 0;
  for (const auto& stretch : of_device_) milliseconds += stretch->begin.elapsedTime(stretch->end);
  return of_host_.count() + milliseconds / 1000;
}

void WaitClock::time(c10::Device where, const std::function<void()>& wait) {
  if (device_.is_cpu() || device_.is_meta()) {  // those have no events
    const auto begin = std::chrono::steady_clock::now();
    wait();
    waits_.of_host_ += std::chrono::steady_clock::now() - begin;
    return;
  }
  if (where != device_) return wait();
  const c10::impl::VirtualGuardImpl streams(device_.type());
  const auto stretch = std::make_shared<Waits::Stretch>(device_.type());
  stretch->begin.record(streams.getStream(device_));
  wait();
  stretch->end.record(streams.getStream(device_));
  waits_.of_device_.push_back(stretch);
}

Waits WaitClock::take() { return std::exchange(waits_, {}); }

}  // namespace blt
