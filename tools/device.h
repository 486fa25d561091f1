// The choice of a device on a command line.
#pragma once

#include <c10/core/Device.h>

#include <string_view>
#include <utility>

#include "blt/base/config.h"

namespace blt {

enum class DeviceChoice { kCpu, kCuda };
template <>
struct EnumNames<DeviceChoice> {
  static constexpr std::pair<DeviceChoice, std::string_view> kValues[] = {{DeviceChoice::kCpu, "cpu"},
                                                                          {DeviceChoice::kCuda, "cuda"}};
};

// Throws blt::Error when there are no CUDA kernels in this build, or no device that could run them.
at::Device checked_device(DeviceChoice choice);

}  // namespace blt
