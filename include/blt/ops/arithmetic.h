// What rounds besides an operator's inputs.
#pragma once

#include <c10/core/Device.h>

#include <string>

namespace blt::ops {

// All that the bits of results on `device` depend on besides inputs, shapes and libblt's own code, as a line of text. On the CPU: the
// instruction set of the kernels. On CUDA: the device's name and compute capability, the versions of LibTorch and CUDA, and what the process allows
// products to round (TF32, sums in 16 bits) now. Of other devices: their type.
std::string arithmetic(c10::Device device);

// From now on, matrix products of 16-bit types on CUDA are summed in float32 throughout, in all of this process: LibTorch otherwise lets cuBLAS add
// up parts of a sum in 16 bits. find_device (model/device.h) calls it. What is float32 is left as it is: no TF32, unless
// TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 is in the environment or the program asks LibTorch for it.
void sum_products_in_float32();

}  // namespace blt::ops
