#include "blt/base/memory.h"

#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace blt {
namespace {

class KeepFreedMemory : public testing::Test {
 protected:
  void SetUp() override {
#ifndef __GLIBC__
    GTEST_SKIP() << "does nothing without glibc";
#endif
  }
};

TEST(ProcessMemory, GrowsWithWhatIsTouchedAndKeepsThePeak) {
  if (process_memory().resident == 0) GTEST_SKIP() << "the system does not say";
  constexpr size_t kSize = 64 << 20;
  const ProcessMemory before = process_memory();
  {
    const std::vector<char> touched(kSize, 'x');
    EXPECT_GT(process_memory().resident, before.resident + static_cast<int64_t>(kSize) * 9 / 10)
        << touched[5];
  }
  const ProcessMemory after = process_memory();
  EXPECT_GE(after.peak, before.resident + static_cast<int64_t>(kSize) * 9 / 10);
  EXPECT_GE(after.peak, after.resident);
}

at::Tensor bytes(int64_t size) { return at::empty({size}, at::kByte); }

// First, as memory of before is what the others leave none of.
TEST_F(KeepFreedMemory, FreesMemoryOfBefore) {
  const at::Tensor x = bytes(1000);
  void* const raw = c10::GetCPUAllocator()->raw_allocate(1000);
  keep_freed_memory();
  c10::GetCPUAllocator()->raw_deallocate(raw);
  c10::GetCPUAllocator()->raw_deallocate(c10::GetCPUAllocator()->raw_allocate(1000));
  c10::GetCPUAllocator()->raw_deallocate(nullptr);
}

TEST_F(KeepFreedMemory, TensorsLieWhereLibTorchPutsThem) {
  keep_freed_memory();
  for (int64_t size = 1; size < 5000; size += 7) {
    const at::Tensor x = bytes(size), y = x.clone();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(x.data_ptr()) % 64, 0U) << size;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(y.data_ptr()) % 64, 0U) << size;
  }
  EXPECT_EQ(bytes(0).numel(), 0);
}

// Also once what lies around it is taken: an aligned block that is carved out of a larger one leaves small ones there.
TEST_F(KeepFreedMemory, ATensorTakesThePlaceOfOneOfItsSize) {
  keep_freed_memory();
  for (const int64_t size : {int64_t{5000}, int64_t{1} << 20, (int64_t{4} << 20) + 12}) {
    std::vector<at::Tensor> held;
    for (int i = 0; i < 8; ++i) held.push_back(bytes(size));
    std::vector<std::unique_ptr<std::byte[]>> small;
    for (size_t bytes = 16; bytes <= 128; bytes += 16)
      for (int i = 0; i < 100; ++i) small.push_back(std::make_unique<std::byte[]>(bytes));
    for (at::Tensor& tensor : held) {
      const void* const place = tensor.data_ptr();
      tensor.reset();
      tensor = bytes(size);
      EXPECT_EQ(tensor.data_ptr(), place) << size;
    }
  }
}

}  // namespace
}  // namespace blt
