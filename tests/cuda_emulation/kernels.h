// Lets the CUDA code of operators (cuda.cpp and cuda_kernel.cu, compiled for the host) run in the place of their CPU code.
#pragma once

#include <torch/library.h>

#include <memory>
#include <vector>

namespace blt::emulation {

// The kernels of one operator, which its cuda.cpp registers as it would for CUDA.
struct Registration {
  explicit Registration(void (*kernels)(torch::Library&));
};

// While one lives, operators on CPU tensors run their CUDA code, where they have any; all others their CPU code. New tensors hold NaN,
// so that what a kernel forgets to write is found. One at a time.
class EmulatedCuda {
 public:
  explicit EmulatedCuda(uint64_t seed = 1);
  ~EmulatedCuda();
  EmulatedCuda(const EmulatedCuda&) = delete;
  EmulatedCuda& operator=(const EmulatedCuda&) = delete;

  int64_t launches() const;  // since it was made

 private:
  torch::Library library_;
  int64_t launches_before_;
  bool deterministic_before_, warn_only_before_;
};

}  // namespace blt::emulation

#define BLT_CUDA_KERNELS(m)                                                            \
  static void emulated_kernels(torch::Library& m);                                     \
  static const ::blt::emulation::Registration emulated_registration(emulated_kernels); \
  static void emulated_kernels(torch::Library& m)
