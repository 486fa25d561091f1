// That the emulation finds what it is for: kernels that a GPU would run wrongly now and then.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "message.h"
#include "ops/cuda/kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

// Every thread hands its number to its neighbour through shared memory.
__global__ void hand_on(int* out, bool with_barrier) {
  int* numbers = shared_memory<int>();
  numbers[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (with_barrier) __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = numbers[(threadIdx.x + 1) % blockDim.x];
}

std::vector<int> handed_on(bool with_barrier) {
  std::vector<int> out(3 * 64);
  launch(hand_on, dim3(3), 64, 64 * sizeof(int), nullptr, out.data(), with_barrier);
  return out;
}

TEST(EmulatedCuda, AForgottenBarrierShows) {
  std::vector<int> expected(3 * 64);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] = static_cast<int>((i + 1) % 64);
  EXPECT_EQ(handed_on(true), expected);
  EXPECT_NE(handed_on(false), expected);
}

__global__ void wait_apart(int apart) {
  if (static_cast<int>(threadIdx.x) < apart)
    __syncthreads();
  else
    __syncthreads();
}

__global__ void some_return(int left) {
  if (static_cast<int>(threadIdx.x) < left) return;
  __syncthreads();
}

TEST(EmulatedCuda, RefusesBarriersThatNotAllThreadsReach) {
  launch(wait_apart, dim3(1), 64, 0, nullptr, 0);
  EXPECT_MESSAGE(launch(wait_apart, dim3(1), 64, 0, nullptr, 7),
                 "threads of one block wait at different barriers");
  launch(some_return, dim3(2), 40, 0, nullptr, 40);
  EXPECT_MESSAGE(launch(some_return, dim3(2), 40, 0, nullptr, 3),
                 "37 of 40 threads wait for threads that do not come (3 have returned)");
}

__global__ void group_sums(float* out, int groups) {
  const int group = static_cast<int>(threadIdx.x) / 8;
  if (group >= groups) return;
  const LaneGroup<8> lanes;
  float total = 0;
  for (int i = 0; i <= group; ++i)
    total += lanes.sum(static_cast<float>(lanes.lane));  // another number of times in each group
  out[threadIdx.x] = total;
}

TEST(EmulatedCuda, LanesOfAGroupMeetWithoutTheOthers) {
  std::vector<float> out(40);
  launch(group_sums, dim3(1), 40, 0, nullptr, out.data(), 5);
  for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], 28.f * static_cast<float>(i / 8 + 1)) << i;
}

__global__ void read_lane(int source, unsigned mask, int* out) {
  if (!(mask >> threadIdx.x & 1)) return;
  out[threadIdx.x] = __shfl_sync(mask, static_cast<int>(threadIdx.x), source);
}

__global__ void whole_mask(int* out) {
  if (threadIdx.x < 20) out[threadIdx.x] = static_cast<int>(__ballot_sync(0xffffffffu, threadIdx.x % 2));
}

TEST(EmulatedCuda, RefusesLanesThatAreNotThere) {
  std::vector<int> out(32);
  launch(read_lane, dim3(1), 32, 0, nullptr, 3, 0xffu, out.data());
  EXPECT_EQ(std::accumulate(out.begin(), out.end(), 0), 3 * 8);
  EXPECT_MESSAGE(launch(read_lane, dim3(1), 32, 0, nullptr, 9, 0xffu, out.data()),
                 "reads lane 9, which is not in the mask");
  EXPECT_MESSAGE(launch(whole_mask, dim3(1), 32, 0, nullptr, out.data()),
                 "20 of 32 threads wait for threads that do not come");
}

__global__ void load_four(const float* from, float* out) {
  const Floats<4> values = load_floats<4>(from);
  *out = values.values[3];
}

TEST(EmulatedCuda, RefusesAddressesThatAreNotAligned) {
  alignas(16) const float values[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  float out = 0;
  launch(load_four, dim3(1), 1, 0, nullptr, values + 4, &out);
  EXPECT_EQ(out, 7);
  EXPECT_MESSAGE(launch(load_four, dim3(1), 1, 0, nullptr, values + 1, &out), "is not aligned to 16 bytes");
}

__global__ void number_blocks(int* next, int* out) {
  if (threadIdx.x == 0) out[blockIdx.x + gridDim.x * blockIdx.y] = (*next)++;
}

TEST(EmulatedCuda, TheSeedDecidesTheOrderOfBlocks) {
  std::set<std::vector<int>> orders;
  for (const uint64_t seed : {1, 2, 1}) {
    emulation::set_seed(seed);
    std::vector<int> out(12, -1);
    int next = 0;
    launch(number_blocks, dim3(4, 3), 32, 0, nullptr, &next, out.data());
    EXPECT_EQ(std::set<int>(out.begin(), out.end()).size(), 12u);
    orders.insert(out);
  }
  EXPECT_EQ(orders.size(), 2u);
}

__global__ void read_shared(float* out) { *out = shared_memory<float>()[5]; }

TEST(EmulatedCuda, SharedMemoryStartsAsNan) {
  float out = 0;
  launch(read_shared, dim3(1), 1, 64, nullptr, &out);
  EXPECT_TRUE(std::isnan(out));
}

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
