// What the cuda.cpp of operators share: from tensors to what kernels take, and where kernels are registered.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <memory>

#include "ops/cuda/storage.h"

#ifdef BLT_EMULATED_CUDA
#include <cuda_emulation/kernels.h>  // registers what follows when a test asks for it
#else
// BLT_CUDA_KERNELS(m) { m.impl("segment_pool", forward); }
#define BLT_CUDA_KERNELS(m) TORCH_LIBRARY_IMPL(blt, CUDA, m)
#endif

namespace blt::ops::BLT_DEVICE {

// While it lives, the device of `x` is the current one. Kernels go to `stream()`, the current stream of that device.
class OnDevice {
 public:
  explicit OnDevice(const at::Tensor& x);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  Stream stream() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

inline Storage storage_of(const char* op, const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return Storage::kFloat;
    case at::kHalf:
      return Storage::kHalf;
    case at::kBFloat16:
      return Storage::kBfloat16;
    default:
      TORCH_CHECK(false, op, ": on CUDA, tensors are float32, float16 or bfloat16, got ", x.scalar_type());
  }
}

// `x`, or a copy, as kernels read it: contiguous, from an address that packs may start at.
inline at::Tensor ready(const at::Tensor& x) {
  const at::Tensor result = x.contiguous();
  return reinterpret_cast<uintptr_t>(result.const_data_ptr()) % kPackBytes == 0 ? result : result.clone();
}

// [count + 1] int32 offsets as kernels follow them. What they hold cannot be looked at without waiting for the device.
inline const int32_t* device_offsets(const char* op, const at::Tensor& offsets) {
  TORCH_CHECK(offsets.dim() == 1 && offsets.scalar_type() == at::kInt && offsets.numel() >= 1 &&
                  offsets.is_contiguous(),
              op, ": offsets must be contiguous [count + 1] int32, got ", offsets.scalar_type(), " ",
              offsets.sizes());
  return offsets.const_data_ptr<int32_t>();
}

}  // namespace blt::ops::BLT_DEVICE
