// What kernels are written with. Includes CUDA where nvcc compiles them, the tests' emulation (tests/cuda_emulation) elsewhere: a kernel may use
// what both have. Sources: CUDA C++ Programming Guide, sections 5 and 10.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "ops/cuda/partition.h"
#include "ops/cuda/storage.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include <cuda_emulation/device.h>
#endif

namespace blt::ops::BLT_DEVICE {

constexpr int kWarp = 32;

#ifdef __CUDACC__
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes, Stream stream,
            Arguments&&... arguments) {
  kernel<<<grid, threads, shared_bytes, stream>>>(std::forward<Arguments>(arguments)...);
  check_status(cudaGetLastError());
}

// Dynamic shared memory, 16-byte aligned; its size is what the kernel was launched with.
template <class T>
__device__ T* shared_memory() {
  extern __shared__ __align__(16) unsigned char blt_shared_memory[];
  return reinterpret_cast<T*>(blt_shared_memory);
}

__device__ inline void check_aligned(const void*, size_t) {}
#endif

// N values that are loaded or stored together.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T values[N];
};

template <int N, class T>
__device__ Pack<T, N> load_pack(const T* from) {
  check_aligned(from, sizeof(Pack<T, N>));
  return *reinterpret_cast<const Pack<T, N>*>(from);
}

template <class T, int N>
__device__ Pack<T, N> zero_pack() {
  Pack<T, N> result;
#pragma unroll
  for (int i = 0; i < N; ++i) result.values[i] = static_cast<T>(0.f);
  return result;
}

template <class T, int N>
__device__ void store_pack(T* to, const Pack<T, N>& pack) {
  check_aligned(to, sizeof(Pack<T, N>));
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// N values as they are computed with.
template <int N>
struct Floats {
  float values[N];
};

template <int N>
__device__ Floats<N> zeros() {
  Floats<N> result;
#pragma unroll
  for (int i = 0; i < N; ++i) result.values[i] = 0;
  return result;
}

template <class T, int N>
__device__ Floats<N> widen(const Pack<T, N>& pack) {
  Floats<N> result;
#pragma unroll
  for (int i = 0; i < N; ++i) result.values[i] = static_cast<float>(pack.values[i]);
  return result;
}

template <int N, class T>
__device__ Floats<N> load_floats(const T* from) {
  return widen(load_pack<N>(from));
}

template <int N, class T>
__device__ void store_floats(T* to, const Floats<N>& from) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.values[i] = static_cast<T>(from.values[i]);
  store_pack(to, pack);
}

// `kLanes` (a power of two) neighbouring lanes of a warp that work together, and may part from the others.
template <int kLanes>
struct LaneGroup {
  int lane;
  unsigned mask;

  __device__ LaneGroup() {
    const int in_warp = static_cast<int>(threadIdx.x) % kWarp;
    lane = in_warp % kLanes;
    mask = kLanes == kWarp ? 0xffffffffu : ((1u << (kLanes % kWarp)) - 1) << (in_warp - lane);
  }

  // The sum over the group, the same bits in every lane.
  __device__ float sum(float value) const {
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2)
      value += __shfl_xor_sync(mask, value, distance);
    return value;
  }

  __device__ float max(float value) const {
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2)
      value = fmaxf(value, __shfl_xor_sync(mask, value, distance));
    return value;
  }
};

#ifdef __CUDACC__
// c += a b, by the 32 lanes of a warp together; a [16, 16], b [16, 8], c [16, 8]. Two elements of T in a word, the first in its lower half. Lane l
// has, with g = l / 4 and t = l % 4, of row g of a the elements 2 t, 2 t + 1 in a[0] and 2 t + 8, 2 t + 9 in a[2], of row g + 8 the same in a[1]
// and a[3]; of column g of b the same in b[0] and b[1]; of c those of columns 2 t, 2 t + 1 in row g, then in row g + 8.
// Source: PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type".
template <class T>
__device__ void multiply_tiles(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4]) {
  if constexpr (std::is_same_v<T, c10::BFloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    static_assert(std::is_same_v<T, c10::Half>);
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}
#endif

// run(T()) with the element type that `storage` names.
template <class Run>
void with_storage(Storage storage, const Run& run) {
  switch (storage) {
    case Storage::kFloat:
      return run(float());
    case Storage::kHalf:
      return run(c10::Half());
    case Storage::kBfloat16:
      return run(c10::BFloat16());
  }
}

template <class T>
constexpr int kPackOf = static_cast<int>(kPackBytes / sizeof(T));

// run(T(), std::integral_constant<int, N>()): packs of 16 bytes where rows of `columns` elements are made of such, else of one element.
template <class Run>
void with_packs(Storage storage, int64_t columns, const Run& run) {
  with_storage(storage, [&](auto zero) {
    using T = decltype(zero);
    if (columns % kPackOf<T> == 0)
      run(zero, std::integral_constant<int, kPackOf<T>>());
    else
      run(zero, std::integral_constant<int, 1>());
  });
}

}  // namespace blt::ops::BLT_DEVICE
