// Where models compute, by the names that users give devices.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

namespace blt {

// Whether it is one of cpu, cuda, cuda:0, cuda:1, …
bool is_device_name(const std::string& name);
inline constexpr const char* kDeviceNames = "must be cpu, cuda, or one of several such as cuda:1";

// The device of that name; cuda: the one with the number local_rank (of this process among those of the machine). asked: what the user said,
// such as "device: cuda", for messages. Throws blt::Error where this build has no CUDA kernels, or there is no such device to run them.
// Of a CUDA device, products of 16-bit types are summed in float32 from then on (ops/arithmetic.h).
c10::Device find_device(const std::string& name, const std::string& asked, int64_t local_rank = 0);

}  // namespace blt
