#include "blt/model/device.h"

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "blt/base/error.h"
#include "blt/ops/arithmetic.h"

namespace blt {
namespace {

constexpr std::string_view kCuda = "cuda", kNumbered = "cuda:";

// Whether an operator that every model needs runs on CUDA.
bool has_cuda_kernels() {
  const auto op = c10::Dispatcher::singleton().findSchema({"blt::segment_attention", ""});
  return op && op->hasKernelForDispatchKey(c10::DispatchKey::CUDA);
}

}  // namespace

bool is_device_name(const std::string& name) {
  if (name == "cpu" || name == kCuda) return true;
  const std::string number = name.starts_with(kNumbered) ? name.substr(kNumbered.size()) : "";
  return !number.empty() && number.size() <= 2 &&
         std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
}

c10::Device find_device(const std::string& name, const std::string& asked, int64_t local_rank) {
  if (!is_device_name(name)) throw Error(fmt::format("{}: {}", asked, kDeviceNames));
  if (name == "cpu") return c10::kCPU;
  if (!has_cuda_kernels())
    throw Error(fmt::format(
        "{}: this libblt was built without CUDA kernels; compute on the cpu, or build it with the "
        "preset cuda",
        asked));
  const auto devices = at::hasCUDA() ? static_cast<int64_t>(at::getNumGPUs()) : 0;
  if (devices == 0)
    throw Error(
        fmt::format("{}: no CUDA device is to be seen; compute on the cpu, or look at nvidia-smi and "
                    "CUDA_VISIBLE_DEVICES",
                    asked));
  const int64_t number = name == kCuda ? local_rank : std::stoll(name.substr(kNumbered.size()));
  if (number >= devices)
    throw Error(fmt::format("{}: there is no cuda:{}; {} to be seen: {}", asked, number,
                            devices == 1 ? "one device is" : fmt::format("{} devices are", devices),
                            devices == 1 ? "cuda:0" : fmt::format("cuda:0 to cuda:{}", devices - 1)));
  ops::sum_products_in_float32();
  return {c10::kCUDA, static_cast<c10::DeviceIndex>(number)};
}

}  // namespace blt
