#include "blt/base/memory.h"

#include <cstdlib>  // says whether this is glibc
#include <fstream>
#include <ios>
#include <limits>
#include <string>

#ifdef __GLIBC__
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <malloc.h>

#include <cstddef>
#include <cstdint>
#endif

namespace blt {

ProcessMemory process_memory() {
  ProcessMemory memory;
  std::ifstream status("/proc/self/status");
  for (std::string key; status >> key; status.ignore(std::numeric_limits<std::streamsize>::max(), '\n')) {
    int64_t kib = 0;
    if (key == "VmRSS:" && status >> kib) memory.resident = kib * 1024;
    if (key == "VmHWM:" && status >> kib) memory.peak = kib * 1024;
  }
  return memory;
}

#ifdef __GLIBC__
namespace {

constexpr size_t kAlignment = 64;  // what LibTorch gives its tensors

// A block of malloc's with room to align in. LibTorch asks posix_memalign, which (glibc before 2.38) carves an aligned block out of a
// larger one and gives back what stands around it: a freed block is then too small to be carved for a tensor of the same size, and the
// heap ends in holes.
class AlignedBlocks : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override {
    void* const data = size == 0 ? nullptr : take(size);
    return {data, data, give_back, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return give_back; }
  void copy_data(void* to, const void* from, size_t size) const override {
    default_copy_data(to, from, size);
  }

 private:
  static void* take(size_t size) {
    TORCH_CHECK(size <= std::numeric_limits<size_t>::max() - kAlignment, "cannot allocate ", size, " bytes");
    auto* const block = static_cast<std::byte*>(std::malloc(size + kAlignment));
    TORCH_CHECK(block != nullptr, "cannot allocate ", size, " bytes: not enough memory");
    // malloc aligns to 16, so that there are 16 bytes or more before the next multiple of 64.
    std::byte* const data = block + kAlignment - reinterpret_cast<uintptr_t>(block) % kAlignment;
    block_of(data) = block;
    return data;
  }

  // Raw memory of before may come too (those who free it, oneDNN, ask today's allocator): before it stands not an address close by, but
  // malloc's size of the block.
  static void give_back(void* data) {
    if (data == nullptr) return;
    const uintptr_t before = reinterpret_cast<uintptr_t>(data) - reinterpret_cast<uintptr_t>(block_of(data));
    std::free(before <= kAlignment ? block_of(data) : data);
  }

  static void*& block_of(void* data) { return static_cast<void**>(data)[-1]; }
};

}  // namespace
#endif

void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_MAX, 0);  // a mapping of its own would go back to the system when it is freed
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  // The heap grows in steps of this, rather than once for every allocation.
  mallopt(M_TOP_PAD, 64 << 20);
  static auto* const blocks = new AlignedBlocks;  // outlives every tensor
  c10::SetCPUAllocator(blocks);
#endif
}

}  // namespace blt
