// CUDA's words for code that runs on the host: what ops/cuda/kernel.h includes where nvcc does not compile it.
//
// A block's threads are fibers. They run one at a time, each until it must wait for others (a barrier, a shuffle); who runs next, and in which
// order blocks come, is drawn by lot, so that what is not ordered by a barrier happens in some other order with another seed. Shared memory holds
// NaN when a block starts. Throws c10::Error, out of the launch, where threads of a block wait for each other at different places, where a lane
// that was named is not there, and where an address is not aligned.
#pragma once

#include <c10/util/Exception.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace blt::emulation {

enum class Meeting { kBarrier, kWarp, kShuffle, kBallot };

// Which places a fiber may wait at: a line of a kernel.
struct Place {
  const char* file;
  int line;
};

struct ThreadIndex {
  dim3 thread, block, block_size, grid_size;
};

// Of the fiber that runs.
const ThreadIndex& here();
unsigned char* block_memory();
void wait_for_block(Place place);
// Waits for the lanes of `mask`. Of a shuffle: the value that lane `source` brought; of a ballot: which lanes brought one that is not 0.
uint64_t meet(Meeting meeting, unsigned mask, uint64_t value, unsigned source, Place place);

void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread);

// Decides all orders from now on.
void set_seed(uint64_t seed);
// Kernels started in this process.
int64_t launches();

template <class T>
T shuffle(unsigned mask, T value, unsigned source, Place place) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = meet(Meeting::kShuffle, mask, bits, source, place);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

inline unsigned lane() { return here().thread.x % 32; }
inline unsigned upper_source(unsigned delta) { return lane() + delta < 32 ? lane() + delta : lane(); }
inline unsigned lower_source(unsigned delta) { return lane() >= delta ? lane() - delta : lane(); }

}  // namespace blt::emulation

#define threadIdx (::blt::emulation::here().thread)
#define blockIdx (::blt::emulation::here().block)
#define blockDim (::blt::emulation::here().block_size)
#define gridDim (::blt::emulation::here().grid_size)

#define BLT_HERE \
  ::blt::emulation::Place { __FILE__, __LINE__ }
#define __syncthreads() ::blt::emulation::wait_for_block(BLT_HERE)
#define __syncwarp(mask) \
  static_cast<void>(::blt::emulation::meet(::blt::emulation::Meeting::kWarp, mask, 0, 0, BLT_HERE))
#define __shfl_sync(mask, value, source) ::blt::emulation::shuffle(mask, value, source, BLT_HERE)
#define __shfl_xor_sync(mask, value, bits) \
  ::blt::emulation::shuffle(mask, value, ::blt::emulation::lane() ^ static_cast<unsigned>(bits), BLT_HERE)
#define __shfl_up_sync(mask, value, delta) \
  ::blt::emulation::shuffle(mask, value, ::blt::emulation::lower_source(delta), BLT_HERE)
#define __shfl_down_sync(mask, value, delta) \
  ::blt::emulation::shuffle(mask, value, ::blt::emulation::upper_source(delta), BLT_HERE)
#define __ballot_sync(mask, predicate) \
  static_cast<unsigned>(               \
      ::blt::emulation::meet(::blt::emulation::Meeting::kBallot, mask, (predicate) ? 1 : 0, 0, BLT_HERE))
#define __popc(bits) __builtin_popcount(bits)

namespace blt::ops::BLT_DEVICE {

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes, Stream,
            Arguments&&... arguments) {
  ::blt::emulation::run_grid(grid, dim3(static_cast<unsigned>(threads)), shared_bytes,
                             [&] { kernel(arguments...); });
}

// The matrix units, as ops/cuda/kernel.h describes them: lanes hand each other their words.
template <class T>
void multiply_tiles(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4]) {
  struct Words {
    uint32_t a[4], b[2];
  };
  Words own;
  std::memcpy(own.a, a, sizeof(a));
  std::memcpy(own.b, b, sizeof(b));
  const auto from_lane = [&](unsigned lane) {
    return reinterpret_cast<const Words*>(
        ::blt::emulation::shuffle(~0u, reinterpret_cast<uintptr_t>(&own), lane, BLT_HERE));
  };
  const unsigned line = ::blt::emulation::lane() / 4, quarter = ::blt::emulation::lane() % 4;
  const Words *rows[4], *columns[2][4];
  for (unsigned t = 0; t < 4; ++t) {
    rows[t] = from_lane(4 * line + t);
    for (unsigned column = 0; column < 2; ++column)
      columns[column][t] = from_lane(4 * (2 * quarter + column) + t);
  }
  const auto element = [](uint32_t word, unsigned half) {
    const auto bits = static_cast<uint16_t>(word >> (16 * half));
    return static_cast<float>(T(bits, T::from_bits()));
  };
  for (unsigned i = 0; i < 4; ++i)
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned t = k % 8 / 2;
      c[i] += element(rows[t]->a[k / 8 * 2 + i / 2], k % 2) * element(columns[i % 2][t]->b[k / 8], k % 2);
    }
  __syncwarp(~0u);  // until then the others read `own`
}

template <class T>
T* shared_memory() {
  return reinterpret_cast<T*>(::blt::emulation::block_memory());
}

inline void check_aligned(const void* address, size_t bytes) {
  TORCH_CHECK(reinterpret_cast<uintptr_t>(address) % bytes == 0, "emulated CUDA: ", address,
              " is not aligned to ", bytes, " bytes");
}

}  // namespace blt::ops::BLT_DEVICE
