#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/cuda/glue.h"

namespace blt::ops::BLT_DEVICE {

struct OnDevice::State {
  c10::cuda::CUDAGuard guard;
};

OnDevice::OnDevice(const at::Tensor& x) : state_(new State{c10::cuda::CUDAGuard(x.device())}) {}
OnDevice::~OnDevice() = default;

Stream OnDevice::stream() const { return c10::cuda::getCurrentCUDAStream(); }

void check_status(int status) { C10_CUDA_CHECK(static_cast<cudaError_t>(status)); }

}  // namespace blt::ops::BLT_DEVICE
