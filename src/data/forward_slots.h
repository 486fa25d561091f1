// Where a few forward passes run beside each other, and beside other work of a device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

namespace blt {

// What one pass over packed ids has to itself. On a device: a stream that nobody else orders work on, and pinned memory, so that copies on
// that stream need no waiting. On the CPU: plain memory.
struct ForwardSlot {
  ForwardSlot(c10::Device device, int64_t rows);

  std::optional<c10::Stream> stream = {};
  at::Tensor ids, targets;    // [rows] int32
  at::Tensor offsets;         // [rows + 1] int32
  at::Tensor entropies, nll;  // [rows] float32
};

// `count` slots; memory that passes need is bounded by them, whoever asks. Thread-safe.
class ForwardSlots {
 public:
  ForwardSlots(c10::Device device, int64_t count, int64_t rows);
  // Waits for what a pass that threw has left under way: its weights may go away next.
  ~ForwardSlots();
  ForwardSlots(const ForwardSlots&) = delete;
  ForwardSlots& operator=(const ForwardSlots&) = delete;

  // A slot until it is destroyed.
  class Lease {
   public:
    explicit Lease(ForwardSlots& slots) : slots_(slots), slot_(slots.take()) {}
    ~Lease() { slots_.give_back(slot_); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ForwardSlot& operator*() const { return slot_; }

   private:
    ForwardSlots& slots_;
    ForwardSlot& slot_;
  };

 private:
  ForwardSlot& take();  // waits for one
  void give_back(ForwardSlot& slot);

  std::vector<ForwardSlot> slots_;
  std::mutex mutex_;
  std::condition_variable given_back_;
  std::vector<ForwardSlot*> free_;
};

}  // namespace blt
