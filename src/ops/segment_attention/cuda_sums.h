// What the CUDA kernels of segment_attention share.
//
// All sums have one shape: rows of one side of a segment (the owners: queries, or keys) stay in registers while the rows of the other side (the
// partners) pass by. A few lanes hold an owner row, 16 bytes of it each, so that a warp has rows of several heads. Each result has one writer and one
// order of additions: there are no atomics, and a row depends on its own segment alone.
//
// A group of lanes has a segment and a head: which ones is in its number, so nobody searches the offsets. Segments with many rows on a side (a patch
// that is a long run of blanks) are left to whole blocks.
#pragma once

#include "ops/cuda/head_rows.h"
#include "ops/segment_attention/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {

constexpr int kThreads = 128;             // of a block
constexpr int64_t kManyRows = 64;         // owners or partners from which on a whole block shares a segment
constexpr int64_t kMostLongBlocks = 256;  // that look for such segments, for each head

// Partner rows that are asked for at once. More of 16 bits would take registers that there are not.
template <class T>
constexpr int kPartnersOf = 16 / kPackOf<T>;

// Up to kOwners owner rows of one segment and one head.
struct Chunk {
  int64_t owners_begin, partners_begin;  // of the segment, among all rows
  int64_t first;                         // owner of the segment
  int64_t head;
  int count;
};

__device__ inline int64_t queries_of(const SegmentAttention& a, int64_t segment) {
  return a.q_offsets[segment + 1] - a.q_offsets[segment];
}
__device__ inline int64_t keys_of(const SegmentAttention& a, int64_t segment) {
  return a.k_offsets[segment + 1] - a.k_offsets[segment];
}

// put() and add() of rows that are plain sums, the first of their numbers being `first`.
template <int kRows, int N, class Put>
__device__ void put_rows(const Floats<N> (&rows)[kRows], int first, const Put& to) {
#pragma unroll
  for (int i = 0; i < kRows * N; ++i) to(first + i, rows[i / N].values[i % N]);
}
template <int kRows, int N, class From>
__device__ void add_rows(Floats<N> (&rows)[kRows], int first, const From& from) {
#pragma unroll
  for (int i = 0; i < kRows * N; ++i) rows[i / N].values[i % N] += from(first + i);
}

// Of a sum S:
//   Parameters, attention(parameters)     what it is launched with
//   kLanes, kOwners, kFloats              lanes of a group, owner rows that it holds, floats of its state that are put together
//   kWithoutOwners                        whether there is something to write for partners of a segment that has no owners
//   heads(a), owners(a, s), partners(a, s), owners_begin(a, s), partners_begin(a, s); most_owners(a), most_partners(a) on the host
//   begin(chunk); go_through(chunk, first, last, step): partners first, first + step, ... below last; end(chunk)
//   put(to), add(from)                    its state, and that of the same owners over other partners
template <class S>
__device__ Chunk chunk_of(const SegmentAttention& a, int64_t segment, int64_t head, int64_t owners,
                          int64_t first) {
  return {S::owners_begin(a, segment), S::partners_begin(a, segment), first, head,
          static_cast<int>(smaller(S::kOwners, owners - first))};
}

template <class S>
__global__ void __launch_bounds__(kThreads, 2) short_segments(typename S::Parameters parameters) {
  const SegmentAttention& a = S::attention(parameters);
  const int64_t unit = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / S::kLanes;
  const int64_t segment = unit / S::heads(a);  // heads first: a warp's groups go through the same segments
  if (segment >= a.segments) return;
  const int64_t owners = S::owners(a, segment), partners = S::partners(a, segment);
  if (owners >= kManyRows || partners >= kManyRows || (owners == 0 && !S::kWithoutOwners)) return;
  S sum(parameters);
  int64_t first = 0;
  do {
    const Chunk chunk = chunk_of<S>(a, segment, unit % S::heads(a), owners, first);
    sum.begin(chunk);
    sum.go_through(chunk, 0, partners, 1);
    sum.end(chunk);
    first += S::kOwners;
  } while (first < owners);
}

// A block's threads share a segment. Of many partners each group goes through some (group g through g, g + groups, ...), then the first group puts
// their sums together, in order; of few partners and many owners, each group has owners of its own.
template <class S>
__global__ void __launch_bounds__(kThreads, 2) long_segments(typename S::Parameters parameters) {
  constexpr int kGroups = kThreads / S::kLanes, kLanes = S::kLanes;
  const SegmentAttention& a = S::attention(parameters);
  float* shared = shared_memory<float>();  // [kGroups - 1][S::kFloats][kLanes]
  const int group = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  S sum(parameters);
  for (int64_t segment = blockIdx.x; segment < a.segments; segment += gridDim.x) {
    const int64_t owners = S::owners(a, segment), partners = S::partners(a, segment);
    if (partners < kManyRows) {
      if (owners < kManyRows) continue;
      for (int64_t first = int64_t{group} * S::kOwners; first < owners; first += kGroups * S::kOwners) {
        const Chunk chunk = chunk_of<S>(a, segment, blockIdx.y, owners, first);
        sum.begin(chunk);
        sum.go_through(chunk, 0, partners, 1);
        sum.end(chunk);
      }
      continue;
    }
    if (owners == 0 && !S::kWithoutOwners) continue;
    int64_t first = 0;
    do {
      const Chunk chunk = chunk_of<S>(a, segment, blockIdx.y, owners, first);
      sum.begin(chunk);
      sum.go_through(chunk, group, partners, kGroups);
      if (group > 0)
        sum.put([&](int i, float value) { shared[((group - 1) * S::kFloats + i) * kLanes + lane] = value; });
      __syncthreads();
      if (group == 0) {
        for (int other = 0; other < kGroups - 1; ++other)
          sum.add([&](int i) { return shared[(other * S::kFloats + i) * kLanes + lane]; });
        sum.end(chunk);
      }
      __syncthreads();
      first += S::kOwners;
    } while (first < owners);
  }
}

template <class S>
void launch_sum(const typename S::Parameters& parameters, Stream stream) {
  const SegmentAttention& a = S::attention(parameters);
  const int64_t threads = a.segments * S::heads(a) * S::kLanes;
  launch(short_segments<S>, dim3(static_cast<unsigned>(ceil_div(threads, kThreads))), kThreads, 0, stream,
         parameters);
  if (S::most_owners(a) < kManyRows && S::most_partners(a) < kManyRows) return;
  constexpr int kBytes =
      (kThreads / S::kLanes - 1) * S::kFloats * S::kLanes * static_cast<int>(sizeof(float));
  static_assert(kBytes <= 48 * 1024, "more shared memory than a block gets");
  const dim3 grid(static_cast<unsigned>(smaller(a.segments, kMostLongBlocks)),
                  static_cast<unsigned>(S::heads(a)));
  launch(long_segments<S>, grid, kThreads, kBytes, stream, parameters);
}

}  // namespace blt::ops::BLT_DEVICE
