#include "blt/ops/arithmetic.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <torch/headeronly/version.h>
#include <torch/library.h>

#include <sstream>

#include "ops/cpu/dispatch.h"
#include "ops/door.h"

namespace blt::ops {
namespace {

TORCH_LIBRARY_FRAGMENT(blt, m) { m.def("device_name(Tensor there) -> str"); }

// The flags are the process's: others may have set them.
std::string cuda_arithmetic(c10::Device device) {
  static const auto name = schema<std::string(const at::Tensor&)>("blt::device_name");
  at::Context& context = at::globalContext();
  std::ostringstream text;
  text << "cuda, " << name.call(at::empty({0}, at::TensorOptions().device(device))) << ", LibTorch "
       << TORCH_VERSION << ", CUDA " << at::detail::getCUDAHooks().versionCUDART() << ", products "
       << static_cast<int>(context.float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL)) << " "
       << static_cast<int>(context.allowFP16ReductionCuBLAS()) << " "
       << static_cast<int>(context.allowBF16ReductionCuBLAS()) << " "
       << static_cast<int>(context.blasPreferredBackend());
  return text.str();
}

}  // namespace

std::string arithmetic(c10::Device device) {
  if (device.is_cpu()) return "cpu" + std::to_string(static_cast<int>(isa()));
  if (device.is_cuda()) return cuda_arithmetic(device);
  return c10::DeviceTypeName(device.type(), /*lower_case=*/true);
}

void sum_products_in_float32() {
  at::globalContext().setAllowBF16ReductionCuBLAS(/*allow_reduced_precision=*/false);
  at::globalContext().setAllowFP16ReductionCuBLAS(/*allow_reduced_precision=*/false);
}

}  // namespace blt::ops
