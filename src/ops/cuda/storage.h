// What the border of a CUDA kernel speaks: element types and streams, without CUDA's or LibTorch's headers. C++17: device code includes this.
//
// An operator's CUDA code is two files. cuda.cpp turns tensors into a struct of pointers and is compiled by the host's compiler; cuda_kernel.cu
// has the kernels and `launch` functions that take such a struct and a stream. Neither knows who compiles it: tests/cuda_emulation compiles both
// for the host, into another namespace.
#pragma once

#include <cstdint>

#ifndef BLT_DEVICE
#define BLT_DEVICE gpu  // the namespace of device code
#endif

struct CUstream_st;

namespace blt::ops::BLT_DEVICE {

using Stream = CUstream_st*;  // cudaStream_t

enum class Storage { kFloat, kHalf, kBfloat16 };

// Throws c10::Error, with CUDA's words, unless `status` (a cudaError_t) says that all is well. Device code calls it after each launch and each
// call of a library: what is asked of CUDA in between (memory, by the allocator) may forget an error that nobody looked at.
void check_status(int status);

constexpr int64_t kPackBytes = 16;      // what a thread loads or stores at once
constexpr int64_t kMaxHeadWidth = 128;  // of attention kernels

}  // namespace blt::ops::BLT_DEVICE
