// Tests of an operator that run with each of its kernels.
//
//   BLT_TEST_EVERYWHERE(PackedLinear, ARowDoesNotDependOnWhatSurroundsIt) { ... where.device() ... }
//
// stands for three: with the CPU's kernels; Emulated..., with CUDA's on the host (tests/cuda_emulation) in two orders of blocks and threads; and
// Cuda..., on a device, which is skipped where there is none.
#pragma once

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "cuda_emulation/kernels.h"

namespace blt {

enum class Kernels { kCpu, kEmulated, kCuda };

struct Where {
  Kernels kernels = Kernels::kCpu;

  at::Device device() const { return kernels == Kernels::kCuda ? at::kCUDA : at::kCPU; }
  bool is_cpu() const { return kernels == Kernels::kCpu; }
  // Types that the kernels take.
  std::vector<at::ScalarType> dtypes() const {
    std::vector<at::ScalarType> result = {at::kFloat, at::kHalf, at::kBFloat16};
    if (is_cpu()) result.push_back(at::kDouble);
    return result;
  }
};

inline void run_in(Kernels kernels, const std::function<void(const Where&)>& test) {
  const Where where{kernels};
  if (kernels == Kernels::kCuda && (!at::hasCUDA() || at::getNumGPUs() == 0))
    GTEST_SKIP() << "no CUDA device";
  if (kernels != Kernels::kEmulated) return test(where);
  for (const uint64_t seed : {1, 2}) {
    const emulation::EmulatedCuda cuda(seed);
    test(where);
    EXPECT_GT(cuda.launches(), 0);
  }
}

}  // namespace blt

#define BLT_TEST_EVERYWHERE(suite, name)                                   \
  void suite##name(const Where& where);                                    \
  TEST(suite, name) { run_in(Kernels::kCpu, suite##name); }                \
  TEST(suite, Emulated##name) { run_in(Kernels::kEmulated, suite##name); } \
  TEST(suite, Cuda##name) { run_in(Kernels::kCuda, suite##name); }         \
  void suite##name([[maybe_unused]] const Where& where)
