#include "cuda_emulation/kernels.h"

#include <ATen/Context.h>
#include <c10/util/Exception.h>

#include "ops/cuda/glue.h"
#include "ops/cuda/kernel.h"

namespace blt::emulation {
namespace {

std::vector<void (*)(torch::Library&)>& registered() {
  static std::vector<void (*)(torch::Library&)> kernels;
  return kernels;
}

// LibTorch warns when a kernel takes another's place, which is what is wanted here.
class Silence : public c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

}  // namespace

Registration::Registration(void (*kernels)(torch::Library&)) { registered().push_back(kernels); }

EmulatedCuda::EmulatedCuda(uint64_t seed)
    : library_(torch::Library::IMPL, "blt", c10::DispatchKey::CPU, __FILE__, __LINE__),
      launches_before_(emulation::launches()),
      deterministic_before_(at::globalContext().deterministicAlgorithms()),
      warn_only_before_(at::globalContext().deterministicAlgorithmsWarnOnly()) {
  Silence silence;
  const c10::WarningUtils::WarningHandlerGuard quiet(&silence);
  for (const auto kernels : registered()) kernels(library_);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);  // new tensors hold NaN
  set_seed(seed);
}

EmulatedCuda::~EmulatedCuda() {
  at::globalContext().setDeterministicAlgorithms(deterministic_before_, warn_only_before_);
}

int64_t EmulatedCuda::launches() const { return emulation::launches() - launches_before_; }

}  // namespace blt::emulation

namespace blt::ops::BLT_DEVICE {

struct OnDevice::State {};

OnDevice::OnDevice(const at::Tensor&) {}
OnDevice::~OnDevice() = default;
Stream OnDevice::stream() const { return nullptr; }

}  // namespace blt::ops::BLT_DEVICE
