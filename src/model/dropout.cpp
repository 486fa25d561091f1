#include "model/dropout.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>

#include <mutex>

#include "blt/ops/dropout_add.h"

namespace blt {

int64_t random_seed() {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  const std::lock_guard lock(generator.mutex());
  return static_cast<int64_t>(at::check_generator<at::CPUGeneratorImpl>(generator)->random64());
}

at::Tensor module_dropout(const at::Tensor& x, double probability, bool training,
                          const at::Tensor& residual) {
  if (training && probability > 0) return ops::dropout_add(x, probability, random_seed(), residual);
  return residual.defined() ? residual + x : x;
}

}  // namespace blt
