// Counts the memory of tensors, so that tests can say how much a function needs without looking at a clock or at the system.
#pragma once

#include <ATen/Parallel.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace blt {

// While it lives, every block that LibTorch allocates on the CPU is counted (also those of libblt's kernels, which take their scratch
// memory there), and LibTorch has one thread, as it is chance which threads hold their scratch memory together. One at a time; blocks of before may be freed while it lives, and its own after it.
class MemoryMeter {
 public:
  MemoryMeter() : before_(c10::GetCPUAllocator()) {
    at::set_num_threads(1);
    counting().inner = before_;
    c10::SetCPUAllocator(&counting(), kPriority);
  }
  ~MemoryMeter() {
    c10::SetCPUAllocator(before_, kPriority);
    at::set_num_threads(threads_);
  }
  MemoryMeter(const MemoryMeter&) = delete;

  // The most bytes held at once while f() ran, beyond those held when it started. What f() returns is part of it.
  template <class F>
  int64_t peak(const F& f) {
    const int64_t before = live();
    most() = before;
    f();
    return most() - before;
  }

 private:
  static constexpr uint8_t kPriority = 0;

  static std::atomic<int64_t>& live() {
    static std::atomic<int64_t> value{0};
    return value;
  }
  static std::atomic<int64_t>& most() {
    static std::atomic<int64_t> value{0};
    return value;
  }

  // What a counted block needs to be freed, by its address: the context of a block is the block itself, as LibTorch's users of raw memory
  // (oneDNN) ask. Lives on its own, as blocks outlive the meter.
  struct Block {
    c10::DataPtr memory;
    int64_t size = 0;
  };
  struct Blocks {
    std::mutex mutex;
    std::unordered_map<void*, Block> held;
  };
  static Blocks& blocks() {
    static Blocks blocks;
    return blocks;
  }
  static void free_block(void* data) {
    const std::lock_guard lock(blocks().mutex);
    const auto block = blocks().held.find(data);
    if (block == blocks().held.end()) {  // raw memory of before: those who free it ask today's allocator
      counting().inner->raw_deallocate(data);
      return;
    }
    live() -= block->second.size;
    blocks().held.erase(block);
  }

  struct Counting : c10::Allocator {
    c10::Allocator* inner = nullptr;

    c10::DataPtr allocate(size_t size) override {
      c10::DataPtr memory = inner->allocate(size);
      void* const data = memory.get();
      if (data == nullptr) return memory;
      const auto bytes = static_cast<int64_t>(size);
      const int64_t now = live() += bytes;
      int64_t before = most();
      while (now > before && !most().compare_exchange_weak(before, now)) {
      }
      const std::lock_guard lock(blocks().mutex);
      Block& block = blocks().held[data];
      block.memory
          .release_context();  // what stood here was raw memory that was freed after its meter, by the allocator of then
      block = {std::move(memory), bytes};
      return {data, data, free_block, c10::Device(c10::DeviceType::CPU)};
    }
    c10::DeleterFnPtr raw_deleter() const override { return free_block; }
    void copy_data(void* to, const void* from, size_t size) const override {
      default_copy_data(to, from, size);
    }
  };
  static Counting& counting() {
    static Counting allocator;
    return allocator;
  }

  c10::Allocator* before_;
  int threads_ = at::get_num_threads();
};

}  // namespace blt
