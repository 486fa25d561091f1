// What rounds besides an operator's inputs.
#pragma once

#include <c10/core/Device.h>

#include <string>

namespace blt::ops {

// All that the bits of results on `device` depend on besides inputs, shapes and libblt's own code, as a line of text. On the CPU: the
// instruction set of the kernels. On CUDA: the device's name and compute capability, the versions of LibTorch and CUDA, and what the process allows
// products to round (TF32, sums in 16 bits) now. Of other devices: their type.
std::string arithmetic(c10::Device device);

}  // namespace blt::ops
