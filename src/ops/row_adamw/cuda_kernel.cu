// row_adamw_ on CUDA.
#include "ops/cuda/kernel.h"
#include "ops/row_adamw/cuda_kernel.h"
#include "ops/stochastic_rounding.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 16;              // rows of a block
constexpr int64_t kMostBlocks = 4096;  // that share the touched rows

// The rows of a block, found at once by as many threads.
struct Tile {
  int64_t row[kTile];       // of the table; -1: none
  int64_t gradient[kTile];  // row of the values; -1: not touched, its gradient is 0
  float row_step[kTile];    // learning rate over the row's root of the second moment, where rows have one
};

template <int N>
__device__ void store_moments(float* to, const Floats<N>& from, RowNoise, int64_t, int) {
  store_floats(to, from);
}
// From `column` of a row on. shift: which half of the noise is theirs.
template <int N>
__device__ void store_moments(c10::BFloat16* to, const Floats<N>& from, RowNoise noise, int64_t column,
                              int shift) {
  Pack<c10::BFloat16, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const uint32_t bits = noise_at(noise, static_cast<uint32_t>(column + i)) >> shift & 0xffff;
    pack.values[i] = c10::BFloat16(round_to_bfloat16(from.values[i], bits), c10::BFloat16::from_bits());
  }
  store_pack(to, pack);
}

// What only the device knows of a step.
struct Step {
  float size, inverse_root2;
  uint64_t noise;
  __device__ explicit Step(const RowAdamW& a)
      : size(*a.step_size),
        inverse_root2(*a.inverse_root2),
        noise(noise_of_step(a.seed, static_cast<uint64_t>(*a.step))) {}
};

// The second moment of each row of a tile. A warp has a row; lane i adds up columns i, i + 32, ... in order.
__device__ void move_row_moments(const RowAdamW& a, const Step& step, float scale, Tile& tile) {
  const LaneGroup<kWarp> warp;
  for (int place = static_cast<int>(threadIdx.x) / kWarp; place < kTile; place += kThreads / kWarp) {
    const int64_t row = tile.row[place], gradient = tile.gradient[place];
    if (row < 0) continue;
    float second = a.row_sq[row] * a.beta2;
    if (gradient >= 0) {
      float sum = 0;
      for (int64_t column = warp.lane; column < a.columns; column += kWarp) {
        const float grad = a.values[gradient * a.columns + column] * scale;
        sum += grad * grad;
      }
      second += warp.sum(sum) / static_cast<float>(a.columns) * a.fresh2;
    }
    if (warp.lane != 0) continue;
    a.row_sq[row] = second;
    tile.row_step[place] = step.size / (sqrtf(second) * step.inverse_root2 + a.eps);
  }
}

template <int N, class M, bool kByRow>
__device__ void move(const RowAdamW& a, const Step& step, int64_t row, int64_t column, const Floats<N>& grad,
                     float row_step) {
  const int64_t at = row * a.columns + column;
  M* exp_avg = static_cast<M*>(a.exp_avg) + at;
  Floats<N> table = load_floats<N>(a.table + at), first = load_floats<N>(exp_avg);
  RowNoise noise{};
  if constexpr (!std::is_same<M, float>::value) noise = row_noise(step.noise, a.first_row + row);
#pragma unroll
  for (int i = 0; i < N; ++i) first.values[i] = first.values[i] * a.beta1 + grad.values[i] * a.fresh1;
  if constexpr (kByRow) {
#pragma unroll
    for (int i = 0; i < N; ++i) table.values[i] = table.values[i] * a.keep - first.values[i] * row_step;
  } else {
    M* exp_avg_sq = static_cast<M*>(a.exp_avg_sq) + at;
    Floats<N> second = load_floats<N>(exp_avg_sq);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      second.values[i] = second.values[i] * a.beta2 + grad.values[i] * grad.values[i] * a.fresh2;
      const float root = sqrtf(second.values[i]) * step.inverse_root2 + a.eps;
      table.values[i] = table.values[i] * a.keep - step.size * (first.values[i] / root);
    }
    store_moments(exp_avg_sq, second, noise, column, 16);
  }
  store_floats(a.table + at, table);
  if (a.rounded != nullptr) store_floats(static_cast<c10::BFloat16*>(a.rounded) + at, table);
  store_moments(exp_avg, first, noise, column, 0);
}

// Exact: a block has kTile neighbouring rows of the table. With touched_only: kTile touched rows at a time. Each element has one writer.
// Bound by memory: 12 bytes read and 12 written for each element of the table (of touched rows only, with touched_only), and 4 read for
// each of the touched rows' gradient. Exact, for 6 x 500,002 x 1,024 elements: 73.7 GB of traffic. With moments in bfloat16, or one second
// moment for each row, 8 and 8: 49.2 GB; with both 6 and 6: 36.9 GB. A row's own moment reads its gradient twice, the second time from a cache.
// 2 more are written where the table is rounded to bfloat16: a pass of its own would read 4 again.
template <int N, class M, bool kByRow>
__global__ void __launch_bounds__(kThreads) row_adamw_kernel(RowAdamW a) {
  const float scale = *a.scale;
  if (!(fabsf(scale) < INFINITY)) return;
  const Step step(a);
  Tile& tile = *shared_memory<Tile>();
  const int64_t count = *a.count, packs = a.columns / N;
  const int64_t end = a.touched_only ? count : a.rows;
  for (int64_t first = int64_t{blockIdx.x} * kTile; first < end; first += int64_t{gridDim.x} * kTile) {
    if (threadIdx.x < kTile) {
      const int64_t own = first + threadIdx.x;
      const bool inside = own < end;
      if (a.touched_only) {
        tile.row[threadIdx.x] = inside ? a.ids[own] : -1;
        tile.gradient[threadIdx.x] = inside ? own : -1;
      } else {
        const int64_t place = count_below(a.ids, count, own);
        tile.row[threadIdx.x] = inside ? own : -1;
        tile.gradient[threadIdx.x] = place < count && a.ids[place] == own ? place : -1;
      }
    }
    __syncthreads();
    if constexpr (kByRow) {
      move_row_moments(a, step, scale, tile);
      __syncthreads();
    }
    for (int64_t item = threadIdx.x; item < kTile * packs; item += kThreads) {
      const int64_t place = item / packs, column = item % packs * N;
      const int64_t row = tile.row[place], gradient = tile.gradient[place];
      if (row < 0) break;
      Floats<N> grad = zeros<N>();
      if (gradient >= 0) {
        grad = load_floats<N>(a.values + gradient * a.columns + column);
#pragma unroll
        for (int i = 0; i < N; ++i) grad.values[i] *= scale;
      }
      move<N, M, kByRow>(a, step, row, column, grad, kByRow ? tile.row_step[place] : 0);
    }
    __syncthreads();
  }
}

template <class M, bool kByRow>
void launch_with(const RowAdamW& a, Stream stream) {
  const int64_t tiles = ceil_div(a.touched_only ? a.capacity : a.rows, kTile);
  const dim3 grid(static_cast<unsigned>(a.touched_only ? smaller(tiles, kMostBlocks) : tiles));
  const auto kernel = a.columns % kPackOf<float> == 0 ? row_adamw_kernel<kPackOf<float>, M, kByRow>
                                                      : row_adamw_kernel<1, M, kByRow>;
  launch(kernel, grid, kThreads, sizeof(Tile), stream, a);
}

}  // namespace

void launch_row_adamw(const RowAdamW& a, Stream stream) {
  const bool by_row = a.exp_avg_sq == nullptr;
  if (a.moments == Storage::kBfloat16)
    (by_row ? launch_with<c10::BFloat16, true> : launch_with<c10::BFloat16, false>)(a, stream);
  else
    (by_row ? launch_with<float, true> : launch_with<float, false>)(a, stream);
}

}  // namespace blt::ops::BLT_DEVICE
