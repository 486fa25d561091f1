// Knowing that a device has come so far, without waiting for it before.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <memory>

namespace blt {

// A place in the work of a device: behind everything that this thread had handed to its current stream when the mark was made. Copies to the
// host that are under way then (non_blocking) are there after wait(). The CPU does its work at once. Thread-safe.
class DeviceMark {
 public:
  explicit DeviceMark(c10::Device device) {
    if (device.is_cpu()) return;
    event_ = std::make_shared<c10::Event>(device.type());
    event_->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  }
  void wait() const {
    if (event_) event_->synchronize();
  }
  // Whether the device has come so far; does not wait.
  bool is_past() const { return !event_ || event_->query(); }
  // What this thread hands to its current stream of the device from now on begins behind the mark; the thread does not wait. For a mark of a
  // device other than the CPU. Returns that stream.
  c10::Stream hold_current_stream() const {
    const c10::Stream stream = c10::impl::VirtualGuardImpl(event_->device_type()).getStream(event_->device());
    event_->block(stream);
    return stream;
  }

 private:
  std::shared_ptr<c10::Event> event_;
};

}  // namespace blt
