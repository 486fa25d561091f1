// The name of a CUDA device.
#include <c10/cuda/CUDAException.h>
#include <cuda_runtime_api.h>

#include <string>

#include "ops/cuda/glue.h"

namespace blt::ops::BLT_DEVICE {
namespace {

std::string device_name(const at::Tensor& there) {
  cudaDeviceProp properties;
  C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, there.get_device()));
  return std::string(properties.name) + " " + std::to_string(properties.major) + "." +
         std::to_string(properties.minor);
}

BLT_CUDA_KERNELS(m) { m.impl("device_name", device_name); }

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
