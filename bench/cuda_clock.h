// Seconds on a GPU, through LibTorch's device interface: needs no CUDA headers, so it is in every build. Not yet run.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace blt::bench {

// Times work on the current CUDA stream with events. Not thread-safe. Throws c10::Error where there is no CUDA device.
class CudaClock {
 public:
  explicit CudaClock(at::ScalarType dtype);

  // Device seconds of one call of f, as the mean of `calls`, f being given 0, 1, ... The device is kept busy meanwhile, so that all
  // calls are queued before the first begins: gaps between launches do not count, unless f waits for the device.
  double seconds(int calls, const std::function<void(int)>& f) const;

  double copy_bytes_per_second() const;     // of a large copy on the device, bytes read plus bytes written
  double product_flops_per_second() const;  // of a large at::mm in the dtype

 private:
  // Products that together take the device at least so long.
  void occupy(double seconds) const;

  at::Tensor from_, to_;        // larger than any cache
  at::Tensor a_, b_, product_;  // square
  double product_seconds_ = 0;
};

}  // namespace blt::bench
