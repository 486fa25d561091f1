// Products on CUDA: cuBLAS's, inside LibTorch.
#include <ATen/core/Tensor.h>
#include <ATen/ops/mm.h>

#include "ops/cuda/glue.h"
#include "ops/linear/product.h"

namespace blt::ops::BLT_DEVICE {
namespace {

at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  check_factors(a, b);
  return at::mm(a, b);
}

BLT_CUDA_KERNELS(m) { m.impl("product", product); }

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
