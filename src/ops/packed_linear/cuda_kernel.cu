// packed_linear on CUDA. Every element is a sum in an order that follows from `in` alone, whichever of the kernels below makes it: how many rows
// and columns a block has is chosen by what there is to do, and changes no bit. No atomics.
//
// Moves (in columns + rows (in + columns)) s bytes, s an element's. With few rows that is the weight, which is read once, 16 bytes a lane, as
// many at a time as cover the latency of memory; with more than about a hundred, arithmetic is the bound.
#include "ops/cuda/kernel.h"
#include "ops/packed_linear/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

// 16-bit types, on the matrix units.
//
// Each of the kSlices warps of a block goes through every kSlices-th piece of kPiece elements of the sums, for all elements of the block's tile,
// in the order of the pieces; then the sums of the slices are added up in theirs. A warp's multiply_tiles takes 16 of the weight's rows, 8 rows
// of x and 16 elements of each: a lane's 16 bytes of a row are its part in two of them. Which elements of a piece meet in which of the two is the
// same for x and for the weight, and that is all that counts.
constexpr int kSlices = 8;
constexpr int kPiece = 32;
constexpr int kTileColumns = 16, kTileRows = 8;

struct Bits {
  uint32_t words[4];  // 8 elements
};

template <class T>
__device__ Bits load_bits(const T* row, int64_t at, int64_t in) {
  Bits bits;
  Pack<uint32_t, 4> pack = {{0, 0, 0, 0}};
  if (at < in) pack = load_pack<4>(reinterpret_cast<const uint32_t*>(row + at));
#pragma unroll
  for (int i = 0; i < 4; ++i) bits.words[i] = pack.values[i];
  return bits;
}

// A block has kColumnTiles x kRowTiles tiles of the result; columns and rows past the last are computed as the last, and not stored. Each warp
// loads kAhead pieces before it multiplies them.
template <class T, int kColumnTiles, int kRowTiles, int kAhead>
__global__ void __launch_bounds__(kSlices* kWarp) tile_kernel(PackedLinear a) {
  constexpr int kColumns = kColumnTiles * kTileColumns;
  constexpr int kStride = kColumns + 4;          // of a row of sums: lanes of a warp write to different banks
  float* const slices = shared_memory<float>();  // [kSlices][kTileRows][kStride]
  const int slice = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int line = lane / 4, quarter = lane % 4;  // of a tile's row, and of a piece
  const int64_t first_column = int64_t{blockIdx.x} * kColumns,
                first_row = int64_t{blockIdx.y} * (kRowTiles * kTileRows);

  const T* weights[kColumnTiles][2];
  const T* rows[kRowTiles];
#pragma unroll
  for (int c = 0; c < kColumnTiles; ++c)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      weights[c][half] = static_cast<const T*>(a.weight) +
                         smaller(first_column + c * kTileColumns + half * 8 + line, a.columns - 1) * a.in +
                         quarter * 8;
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r)
    rows[r] = static_cast<const T*>(a.x) + smaller(first_row + r * kTileRows + line, a.rows - 1) * a.in +
              quarter * 8;

  float sums[kColumnTiles][kRowTiles][4] = {};
  const int64_t left = a.in - quarter * 8;
  for (int64_t first = slice * kPiece; first < a.in; first += kAhead * kSlices * kPiece) {
    Bits weight[kAhead][kColumnTiles][2], x[kAhead][kRowTiles];
#pragma unroll
    for (int p = 0; p < kAhead; ++p) {
      const int64_t at = first + p * (kSlices * kPiece);
#pragma unroll
      for (int c = 0; c < kColumnTiles; ++c)
#pragma unroll
        for (int half = 0; half < 2; ++half) weight[p][c][half] = load_bits(weights[c][half], at, left);
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) x[p][r] = load_bits(rows[r], at, left);
    }
#pragma unroll
    for (int p = 0; p < kAhead; ++p) {
      if (first + p * (kSlices * kPiece) >= a.in)
        break;  // the whole warp: a sum has no terms that others lack
#pragma unroll
      for (int part = 0; part < 2; ++part)
#pragma unroll
        for (int c = 0; c < kColumnTiles; ++c)
#pragma unroll
          for (int r = 0; r < kRowTiles; ++r) {
            const uint32_t left_words[4] = {weight[p][c][0].words[2 * part], weight[p][c][1].words[2 * part],
                                            weight[p][c][0].words[2 * part + 1],
                                            weight[p][c][1].words[2 * part + 1]};
            const uint32_t right_words[2] = {x[p][r].words[2 * part], x[p][r].words[2 * part + 1]};
            multiply_tiles<T>(left_words, right_words, sums[c][r]);
          }
    }
  }

#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    if (r > 0) __syncthreads();
    float* const own = slices + slice * kTileRows * kStride;
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        own[(2 * quarter + i % 2) * kStride + c * kTileColumns + i / 2 * 8 + line] = sums[c][r][i];
    __syncthreads();
    for (int e = static_cast<int>(threadIdx.x); e < kTileRows * kColumns; e += kSlices * kWarp) {
      const int row = e / kColumns, column = e % kColumns;
      const int64_t to_row = first_row + r * kTileRows + row, to_column = first_column + column;
      if (to_row >= a.rows || to_column >= a.columns) continue;
      float total = 0;
#pragma unroll
      for (int s = 0; s < kSlices; ++s) total += slices[(s * kTileRows + row) * kStride + column];
      static_cast<T*>(a.out)[to_row * a.columns + to_column] = static_cast<T>(total);
    }
  }
}

template <class T, int kColumnTiles, int kRowTiles, int kAhead>
void launch_tiles(const PackedLinear& a, Stream stream) {
  constexpr int kColumns = kColumnTiles * kTileColumns;
  const dim3 grid(static_cast<unsigned>(ceil_div(a.columns, kColumns)),
                  static_cast<unsigned>(ceil_div(a.rows, kRowTiles * kTileRows)));
  launch(tile_kernel<T, kColumnTiles, kRowTiles, kAhead>, grid, kSlices * kWarp,
         sizeof(float) * kSlices * kTileRows * (kColumns + 4), stream, a);
}

template <class T>
void launch_16_bit(const PackedLinear& a, Stream stream) {
  constexpr int64_t kEnough = 128;  // blocks that keep a GPU busy
  if (a.rows <= kTileRows)
    launch_tiles<T, 1, 1, 4>(a, stream);
  else if (ceil_div(a.columns, 4 * kTileColumns) * ceil_div(a.rows, 4 * kTileRows) < kEnough)
    launch_tiles<T, 1, 4, 2>(a, stream);
  else
    launch_tiles<T, 4, 4, 1>(a, stream);
}

// float32. A warp has kRows x kColumns elements of the result, and lane l of it the terms 4 l to 4 l + 3, 4 l + 128 to 4 l + 131, ... of all
// their sums, in that order; then lanes are added up as halves, quarters, ....
constexpr int kWarps = 4;  // of a block: neighbouring columns of the same rows

// Halves of neighbours in the tree of lanes change places, so that each sum is made once; lane l is left with the elements from
// l kCount / 32 on in the first of `values`. (With fewer than 32, lanes share one.)
template <int kCount, int kDistance = kWarp / 2>
__device__ void add_up_lanes(float* values) {
  if constexpr (kDistance > 0) {
    constexpr unsigned kAll = 0xffffffffu;
    if constexpr (kCount > 1) {
      const bool upper = static_cast<int>(threadIdx.x) & kDistance;
#pragma unroll
      for (int i = 0; i < kCount / 2; ++i) {
        const float kept = upper ? values[kCount / 2 + i] : values[i],
                    given = upper ? values[i] : values[kCount / 2 + i];
        values[i] = kept + __shfl_xor_sync(kAll, given, kDistance);
      }
    } else {
      values[0] += __shfl_xor_sync(kAll, values[0], kDistance);
    }
    add_up_lanes<(kCount > 1 ? kCount / 2 : 1), kDistance / 2>(values);
  }
}

template <int kRows, int kColumns, int kAhead>
__global__ void __launch_bounds__(kWarps* kWarp) float_kernel(PackedLinear a) {
  constexpr int N = kPackOf<float>, kStep = kWarp * N, kCount = kRows * kColumns;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t first_column = (int64_t{blockIdx.x} * kWarps + warp) * kColumns,
                first_row = int64_t{blockIdx.y} * kRows;
  if (first_column >= a.columns) return;
  // Of columns and rows past the last, the last.
  const float* weights[kColumns];
  const float* rows[kRows];
#pragma unroll
  for (int c = 0; c < kColumns; ++c)
    weights[c] = static_cast<const float*>(a.weight) + smaller(first_column + c, a.columns - 1) * a.in;
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    rows[r] = static_cast<const float*>(a.x) + smaller(first_row + r, a.rows - 1) * a.in;

  float sums[kCount] = {};
  for (int64_t first = lane * N; first < a.in; first += kAhead * kStep) {
    Pack<float, N> weight[kAhead][kColumns], x[kAhead][kRows];
#pragma unroll
    for (int p = 0; p < kAhead; ++p) {
      const int64_t at = first + p * kStep;
      const bool inside = at < a.in;
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
        weight[p][c] = inside ? load_pack<N>(weights[c] + at) : zero_pack<float, N>();
#pragma unroll
      for (int r = 0; r < kRows; ++r) x[p][r] = inside ? load_pack<N>(rows[r] + at) : zero_pack<float, N>();
    }
#pragma unroll
    for (int p = 0; p < kAhead; ++p) {
      if (first + p * kStep >= a.in) break;
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
#pragma unroll
          for (int i = 0; i < N; ++i)
            sums[r * kColumns + c] = fmaf(x[p][r].values[i], weight[p][c].values[i], sums[r * kColumns + c]);
    }
  }
  add_up_lanes<kCount>(sums);
  constexpr int kOwn = kCount < kWarp ? 1 : kCount / kWarp;
  if (lane % (kCount < kWarp ? kWarp / kCount : 1) != 0) return;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int element = lane * kCount / kWarp + i;
    const int64_t row = first_row + element / kColumns, column = first_column + element % kColumns;
    if (row < a.rows && column < a.columns) static_cast<float*>(a.out)[row * a.columns + column] = sums[i];
  }
}

template <int kRows, int kColumns, int kAhead>
void launch_floats(const PackedLinear& a, Stream stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div(a.columns, kWarps * kColumns)),
                  static_cast<unsigned>(ceil_div(a.rows, kRows)));
  launch(float_kernel<kRows, kColumns, kAhead>, grid, kWarps * kWarp, 0, stream, a);
}

}  // namespace

void launch_packed_linear(Storage storage, const PackedLinear& a, Stream stream) {
  if (storage == Storage::kBfloat16) return launch_16_bit<c10::BFloat16>(a, stream);
  if (storage == Storage::kHalf) return launch_16_bit<c10::Half>(a, stream);
  if (a.rows == 1)
    launch_floats<1, 2, 4>(a, stream);
  else if (a.rows <= 8)
    launch_floats<8, 4, 1>(a, stream);
  else
    launch_floats<16, 4, 1>(a, stream);
}

}  // namespace blt::ops::BLT_DEVICE
