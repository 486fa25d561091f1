// Tensors between the host and a device, without waiting.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "model/device_mark.h"

namespace blt {

// A tensor of the host's on `device`: itself on the CPU. What this thread hands to its current stream of the device from now on finds it there.
inline at::Tensor sent(const at::Tensor& tensor, at::Device device) {
  return device.is_cuda() ? tensor.pin_memory().to(device, /*non_blocking=*/true) : tensor.to(device);
}

// A tensor on its way to the host.
class Fetched {
 public:
  explicit Fetched(const at::Tensor& tensor)
      : host_(tensor.is_cuda() ? pinned_copy(tensor) : tensor), here_(tensor.device()) {}

  // Waits until it is there, and for nothing that was handed to the device after it.
  const at::Tensor& wait() const {
    here_.wait();
    return host_;
  }

 private:
  static at::Tensor pinned_copy(const at::Tensor& tensor) {
    return at::empty(tensor.sizes(), at::TensorOptions(tensor.scalar_type()).pinned_memory(true))
        .copy_(tensor, /*non_blocking=*/true);
  }

  at::Tensor host_;
  DeviceMark here_;  // behind the copy
};

}  // namespace blt
