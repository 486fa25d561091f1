#include "tools/device.h"

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "blt/base/error.h"

namespace blt {
namespace {

// Whether an operator that every model needs runs on CUDA.
bool has_cuda_kernels() {
  const auto op = c10::Dispatcher::singleton().findSchema({"blt::segment_attention", ""});
  return op && op->hasKernelForDispatchKey(c10::DispatchKey::CUDA);
}

}  // namespace

at::Device checked_device(DeviceChoice choice) {
  if (choice == DeviceChoice::kCpu) return at::kCPU;
  if (!has_cuda_kernels())
    throw Error(
        "--device cuda: this libblt was built without CUDA kernels; use --device cpu, or build it with the "
        "preset "
        "cuda");
  if (!at::hasCUDA())
    throw Error("--device cuda: no CUDA device is to be seen; use --device cpu, or look at nvidia-smi");
  return at::kCUDA;
}

}  // namespace blt
