#include "data/forward_slots.h"

#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <exception>

#include "blt/base/log.h"

namespace blt {

ForwardSlot::ForwardSlot(c10::Device device, int64_t rows) {
  const bool pinned = !device.is_cpu();
  if (pinned) stream = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
  const auto memory = [&](int64_t size, at::ScalarType type) {
    return at::empty({size}, at::TensorOptions().dtype(type).pinned_memory(pinned));
  };
  ids = memory(rows, at::kInt);
  targets = memory(rows, at::kInt);
  offsets = memory(rows + 1, at::kInt);
  entropies = memory(rows, at::kFloat);
  nll = memory(rows, at::kFloat);
}

ForwardSlots::ForwardSlots(c10::Device device, int64_t count, int64_t rows) {
  slots_.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) free_.push_back(&slots_.emplace_back(device, rows));
}

ForwardSlots::~ForwardSlots() {
  for (const ForwardSlot& slot : slots_) try {
      if (slot.stream) slot.stream->synchronize();
    } catch (const std::exception& e) {
      log_warning(e.what());  // the device is lost, and its work with it
    }
}

ForwardSlot& ForwardSlots::take() {
  std::unique_lock lock(mutex_);
  given_back_.wait(lock, [this] { return !free_.empty(); });
  ForwardSlot& slot = *free_.back();
  free_.pop_back();
  return slot;
}

void ForwardSlots::give_back(ForwardSlot& slot) {
  {
    const std::lock_guard lock(mutex_);
    free_.push_back(&slot);
  }
  given_back_.notify_one();
}

}  // namespace blt
