// segment_attention on CUDA.
//
// Three sums have one shape: rows of one side (the owners: queries, or keys) are gone through in registers while the rows of the other side of
// their segment (the partners) pass by: out over keys, the gradient of q over keys, the gradients of k and v over queries. A few lanes hold an
// owner row, 16 bytes of it each, so that a warp has rows of several heads. Each result has one writer and one order of additions: there are no
// atomics, and a row depends on its own segment alone.
//
// Bound by memory. With s bytes an element and rows of E elements, per head (H of the queries, Hkv of the keys):
//   forward          reads q, k, v once, writes out and 4 bytes of log-sum-exp: (2 Nq H + 2 Nk Hkv) E s + 4 Nq H
//   gradient of q    reads q, out, its gradient, k, v, writes the gradient of q: (4 Nq H + 2 Nk Hkv) E s + 8 Nq H
//   gradient of k, v reads q, the gradient of out, k, v, writes two gradients: (2 Nq H + 4 Nk Hkv) E s + 8 Nq H
// Partners are read again for each kOwners owner rows of their segment, from the caches: owners of a segment lie side by side in the grid.
//
// v1: kernels for q and for k and v apart, two owner rows a group, two partners at a time in 16 bits, four in 32.
#include "ops/cuda/head_rows.h"
#include "ops/segment_attention/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kThreads = 128;         // of a block
constexpr int kLongThreads = 256;     // of a block that shares the partners of one chunk of owners
constexpr int kOwners = 2;            // rows that a group of lanes holds at once
constexpr int64_t kLongSegment = 64;  // partners from which on a whole block goes through them
// Partner rows that are asked for at once. More of 16 bits would take registers that there are not.
template <class T>
constexpr int kPartnersOf = 16 / kPackOf<T>;

// A chunk of up to kOwners owner rows of one segment and one head.
struct Chunk {
  int64_t segment, first, head;
  int count;
};

// What sums have in common whose owners are queries and whose partners are keys with their values.
template <class T, int kLanes>
struct QueriesOwn {
  __device__ static const int32_t* owner_offsets(const SegmentAttention& a) { return a.q_offsets; }
  __device__ static int64_t owners(const SegmentAttention& a) { return a.queries; }
  __device__ static int64_t owner_heads(const SegmentAttention& a) { return a.heads; }
  __device__ static int64_t partners(const SegmentAttention& a, int64_t segment) {
    return a.k_offsets[segment + 1] - a.k_offsets[segment];
  }
  static int64_t most_partners(const SegmentAttention& a) { return a.k_longest; }

  // Partners j, j + step, ...; zeros from `last` on.
  template <int N, int kPartners>
  __device__ static void load_partners(const SegmentAttention& a, const Chunk& chunk, int64_t j, int64_t last,
                                       int64_t step, Pack<T, N> (&k)[kPartners], Pack<T, N> (&v)[kPartners]) {
    const int64_t head = chunk.head / (a.heads / a.kv_heads), begin = a.k_offsets[chunk.segment];
#pragma unroll
    for (int p = 0; p < kPartners; ++p) {
      const bool valid = j + p * step < last;
      const int64_t row = (begin + j + p * step) * a.kv_heads + head;
      k[p] = Row<T, kLanes>::load(a.k, row, a.width, valid);
      v[p] = Row<T, kLanes>::load(a.v, row, a.width, valid);
    }
  }
};

// Queries own, keys pass: softmax(scale q k^T) v with a running maximum, in powers of 2.
template <class T, int kLanes>
struct Forward : QueriesOwn<T, kLanes> {
  using Side = QueriesOwn<T, kLanes>;
  using Parameters = SegmentAttention;
  static constexpr int N = kPackOf<T>, kPartners = kPartnersOf<T>;
  static constexpr int kFloats = kOwners * (N + 2);  // what is put together of one thread's state

  const SegmentAttention& a;
  LaneGroup<kLanes> lanes;
  Floats<N> q[kOwners], total[kOwners];
  float highest[kOwners], weight[kOwners];

  __device__ explicit Forward(const SegmentAttention& parameters) : a(parameters) {}

  __device__ static const SegmentAttention& attention(const Parameters& p) { return p; }

  __device__ void begin(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kOwners; ++r) {
      q[r] = widen(
          Row<T, kLanes>::load(a.q, (chunk.first + r) * a.heads + chunk.head, a.width, r < chunk.count));
      total[r] = zeros<N>();
      highest[r] = -INFINITY;
      weight[r] = 0;
    }
  }

  // Partners first, first + step, ... below last.
  __device__ void go_through(const Chunk& chunk, int64_t first, int64_t last, int64_t step) {
    const float scale = a.scale * kLog2E;
    for (int64_t j = first; j < last; j += kPartners * step) {
      Pack<T, N> k[kPartners], v[kPartners];
      Side::load_partners(a, chunk, j, last, step, k, v);
      float score[kOwners][kPartners];
#pragma unroll
      for (int p = 0; p < kPartners; ++p) {
        const Floats<N> key = widen(k[p]);
#pragma unroll
        for (int r = 0; r < kOwners; ++r)
          score[r][p] = j + p * step < last ? lanes.sum(dot(q[r], key)) * scale : -INFINITY;
      }
#pragma unroll
      for (int r = 0; r < kOwners; ++r) {
        float block_highest = highest[r];
#pragma unroll
        for (int p = 0; p < kPartners; ++p) block_highest = fmaxf(block_highest, score[r][p]);
        const float shrink = exp2f(highest[r] - block_highest);  // 0 at first
        highest[r] = block_highest;
        weight[r] *= shrink;
#pragma unroll
        for (int i = 0; i < N; ++i) total[r].values[i] *= shrink;
#pragma unroll
        for (int p = 0; p < kPartners; ++p) {
          score[r][p] = exp2f(score[r][p] - block_highest);
          weight[r] += score[r][p];
        }
      }
#pragma unroll
      for (int p = 0; p < kPartners; ++p) {
        const Floats<N> value = widen(v[p]);
#pragma unroll
        for (int r = 0; r < kOwners; ++r) add_scaled(score[r][p], value, &total[r]);
      }
    }
  }

  template <class Put>
  __device__ void put(const Put& to) const {
#pragma unroll
    for (int r = 0; r < kOwners; ++r) {
#pragma unroll
      for (int i = 0; i < N; ++i) to(r * (N + 2) + i, total[r].values[i]);
      to(r * (N + 2) + N, highest[r]);
      to(r * (N + 2) + N + 1, weight[r]);
    }
  }

  // Adds what other lanes put, of other partners.
  template <class From>
  __device__ void add(const From& from) {
#pragma unroll
    for (int r = 0; r < kOwners; ++r) {
      const float other_highest = from(r * (N + 2) + N), other_weight = from(r * (N + 2) + N + 1);
      if (other_weight == 0) continue;  // it had no partners
      const float both = fmaxf(highest[r], other_highest);
      const float own = exp2f(highest[r] - both), other = exp2f(other_highest - both);
      highest[r] = both;
      weight[r] = weight[r] * own + other_weight * other;
#pragma unroll
      for (int i = 0; i < N; ++i)
        total[r].values[i] = total[r].values[i] * own + from(r * (N + 2) + i) * other;
    }
  }

  __device__ void end(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kOwners; ++r) {
      if (r >= chunk.count) continue;
      const int64_t row = (chunk.first + r) * a.heads + chunk.head;
      const float share = 1 / weight[r];
#pragma unroll
      for (int i = 0; i < N; ++i) total[r].values[i] *= share;
      Row<T, kLanes>::store(a.out, row, a.width, total[r]);
      if (lanes.lane == 0) a.lse[row] = (highest[r] + log2f(weight[r])) / kLog2E;
    }
  }
};

// Queries own, keys pass. Leaves delta, which the gradients of k and v read.
template <class T, int kLanes>
struct GradientOfQ : QueriesOwn<T, kLanes> {
  using Side = QueriesOwn<T, kLanes>;
  using Parameters = SegmentAttentionBackward;
  static constexpr int N = kPackOf<T>, kPartners = kPartnersOf<T>;
  static constexpr int kFloats = kOwners * N;

  const SegmentAttentionBackward& b;
  const SegmentAttention& a;
  LaneGroup<kLanes> lanes;
  Floats<N> q[kOwners], grad[kOwners], total[kOwners];
  float lse[kOwners], delta[kOwners];

  __device__ explicit GradientOfQ(const SegmentAttentionBackward& parameters)
      : b(parameters), a(parameters.forward) {}

  __device__ static const SegmentAttention& attention(const Parameters& p) { return p.forward; }

  __device__ void begin(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kOwners; ++r) {
      const bool valid = r < chunk.count;
      const int64_t row = (chunk.first + r) * a.heads + chunk.head;
      q[r] = widen(Row<T, kLanes>::load(a.q, row, a.width, valid));
      grad[r] = widen(Row<T, kLanes>::load(b.grad, row, a.width, valid));
      delta[r] = lanes.sum(dot(grad[r], widen(Row<T, kLanes>::load(a.out, row, a.width, valid))));
      lse[r] = valid ? a.lse[row] * kLog2E : 0;
      total[r] = zeros<N>();
    }
  }

  __device__ void go_through(const Chunk& chunk, int64_t first, int64_t last, int64_t step) {
    for (int64_t j = first; j < last; j += kPartners * step) {
      Pack<T, N> k[kPartners], v[kPartners];
      Side::load_partners(a, chunk, j, last, step, k, v);
#pragma unroll
      for (int p = 0; p < kPartners; ++p) {  // those past the last have keys of 0 and add nothing
        const Floats<N> key = widen(k[p]), value = widen(v[p]);
#pragma unroll
        for (int r = 0; r < kOwners; ++r) {
          const float weight = exp2f(lanes.sum(dot(q[r], key)) * (a.scale * kLog2E) - lse[r]);
          const float slope = weight * (lanes.sum(dot(grad[r], value)) - delta[r]) * a.scale;
          add_scaled(j + p * step < last ? slope : 0, key, &total[r]);
        }
      }
    }
  }

  template <class Put>
  __device__ void put(const Put& to) const {
#pragma unroll
    for (int i = 0; i < kFloats; ++i) to(i, total[i / N].values[i % N]);
  }

  template <class From>
  __device__ void add(const From& from) {
#pragma unroll
    for (int i = 0; i < kFloats; ++i) total[i / N].values[i % N] += from(i);
  }

  __device__ void end(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kOwners; ++r) {
      if (r >= chunk.count) continue;
      const int64_t row = (chunk.first + r) * a.heads + chunk.head;
      Row<T, kLanes>::store(b.grad_q, row, a.width, total[r]);
      if (lanes.lane == 0) b.delta[row] = delta[r];
    }
  }
};

// Keys own, the queries of all heads that share them pass. Without queries the gradients are 0.
template <class T, int kLanes>
struct GradientOfKv {
  using Parameters = SegmentAttentionBackward;
  static constexpr int N = kPackOf<T>, kPartners = kPartnersOf<T>;
  static constexpr int kFloats = 2 * kOwners * N;

  const SegmentAttentionBackward& b;
  const SegmentAttention& a;
  LaneGroup<kLanes> lanes;
  Floats<N> k[kOwners], v[kOwners], total_k[kOwners], total_v[kOwners];

  __device__ explicit GradientOfKv(const SegmentAttentionBackward& parameters)
      : b(parameters), a(parameters.forward) {}

  __device__ static const SegmentAttention& attention(const Parameters& p) { return p.forward; }
  __device__ static const int32_t* owner_offsets(const SegmentAttention& a) { return a.k_offsets; }
  __device__ static int64_t owners(const SegmentAttention& a) { return a.keys; }
  __device__ static int64_t owner_heads(const SegmentAttention& a) { return a.kv_heads; }
  __device__ static int64_t partners(const SegmentAttention& a, int64_t segment) {
    return (a.q_offsets[segment + 1] - a.q_offsets[segment]) * (a.heads / a.kv_heads);
  }
  static int64_t most_partners(const SegmentAttention& a) { return a.q_longest * (a.heads / a.kv_heads); }

  __device__ void begin(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kOwners; ++r) {
      const int64_t row = (chunk.first + r) * a.kv_heads + chunk.head;
      k[r] = widen(Row<T, kLanes>::load(a.k, row, a.width, r < chunk.count));
      v[r] = widen(Row<T, kLanes>::load(a.v, row, a.width, r < chunk.count));
      total_k[r] = zeros<N>();
      total_v[r] = zeros<N>();
    }
  }

  __device__ void go_through(const Chunk& chunk, int64_t first, int64_t last, int64_t step) {
    const int64_t group = a.heads / a.kv_heads, begin = a.q_offsets[chunk.segment];
    for (int64_t j = first; j < last; j += kPartners * step) {
      Pack<T, N> q[kPartners], grad[kPartners];
      float lse[kPartners], delta[kPartners];
#pragma unroll
      for (int p = 0; p < kPartners; ++p) {
        const int64_t partner = j + p * step;
        const bool valid = partner < last;
        const int64_t row = (begin + partner / group) * a.heads + chunk.head * group + partner % group;
        q[p] = Row<T, kLanes>::load(a.q, row, a.width, valid);
        grad[p] = Row<T, kLanes>::load(b.grad, row, a.width, valid);
        lse[p] = valid ? a.lse[row] * kLog2E : INFINITY;  // past the last: a weight of 0
        delta[p] = valid ? b.delta[row] : 0;
      }
#pragma unroll
      for (int p = 0; p < kPartners; ++p) {
        const Floats<N> query = widen(q[p]), slopes = widen(grad[p]);
#pragma unroll
        for (int r = 0; r < kOwners; ++r) {
          const float weight = exp2f(lanes.sum(dot(query, k[r])) * (a.scale * kLog2E) - lse[p]);
          const float slope = weight * (lanes.sum(dot(slopes, v[r])) - delta[p]) * a.scale;
          add_scaled(weight, slopes, &total_v[r]);
          add_scaled(slope, query, &total_k[r]);
        }
      }
    }
  }

  template <class Put>
  __device__ void put(const Put& to) const {
#pragma unroll
    for (int i = 0; i < kOwners * N; ++i) {
      to(i, total_k[i / N].values[i % N]);
      to(kOwners * N + i, total_v[i / N].values[i % N]);
    }
  }

  template <class From>
  __device__ void add(const From& from) {
#pragma unroll
    for (int i = 0; i < kOwners * N; ++i) {
      total_k[i / N].values[i % N] += from(i);
      total_v[i / N].values[i % N] += from(kOwners * N + i);
    }
  }

  __device__ void end(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kOwners; ++r) {
      if (r >= chunk.count) continue;
      const int64_t row = (chunk.first + r) * a.kv_heads + chunk.head;
      Row<T, kLanes>::store(b.grad_k, row, a.width, total_k[r]);
      Row<T, kLanes>::store(b.grad_v, row, a.width, total_v[r]);
    }
  }
};

// Every group of lanes takes kOwners neighbouring owner rows of one head, whatever segments they are of; heads first, so that a warp's groups
// go through the same segments. Owners of long segments are left to long_segments.
template <template <class, int> class Sum, class T, int kLanes>
__global__ void __launch_bounds__(kThreads, 2)
    short_segments(typename Sum<T, kLanes>::Parameters parameters) {
  using S = Sum<T, kLanes>;
  const SegmentAttention& a = S::attention(parameters);
  const int64_t unit = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kLanes;
  const int64_t first = unit / S::owner_heads(a) * kOwners, last = smaller(first + kOwners, S::owners(a));
  if (first >= last) return;
  const int32_t* offsets = S::owner_offsets(a);
  int64_t segment = segment_of(offsets, a.segments, first);
  S sum(parameters);
  for (int64_t owner = first; owner < last;) {
    while (offsets[segment + 1] <= owner) ++segment;
    const int64_t end = smaller(last, offsets[segment + 1]);
    const int64_t partners = S::partners(a, segment);
    if (partners < kLongSegment) {
      const Chunk chunk{segment, owner, unit % S::owner_heads(a), static_cast<int>(end - owner)};
      sum.begin(chunk);
      sum.go_through(chunk, 0, partners, 1);
      sum.end(chunk);
    }
    owner = end;
  }
}

// Blocks look for segments with many partners (a run of blanks) and go through those with all their groups: group g through partners g,
// g + groups, ...; the first group then puts all sums together, in order. Grid: any number of blocks for the segments; owner heads.
template <template <class, int> class Sum, class T, int kLanes>
__global__ void __launch_bounds__(kLongThreads)
    long_segments(typename Sum<T, kLanes>::Parameters parameters) {
  using S = Sum<T, kLanes>;
  constexpr int kGroups = kLongThreads / kLanes;
  const SegmentAttention& a = S::attention(parameters);
  float* shared = shared_memory<float>();  // [kGroups - 1][S::kFloats][kLanes]
  const int group = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  const int32_t* offsets = S::owner_offsets(a);
  S sum(parameters);
  for (int64_t segment = blockIdx.x; segment < a.segments; segment += gridDim.x) {
    const int64_t partners = S::partners(a, segment);
    if (partners < kLongSegment) continue;
    for (int64_t owner = offsets[segment]; owner < offsets[segment + 1]; owner += kOwners) {
      const Chunk chunk{segment, owner, int64_t{blockIdx.y},
                        static_cast<int>(smaller(kOwners, offsets[segment + 1] - owner))};
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
    }
  }
}

template <template <class, int> class Sum, class T, int kLanes>
void launch_sum(const typename Sum<T, kLanes>::Parameters& parameters, int64_t owners, int64_t owner_heads,
                Stream stream) {
  using S = Sum<T, kLanes>;
  const SegmentAttention& a = S::attention(parameters);
  const int64_t units = ceil_div(owners, kOwners) * owner_heads;
  launch(short_segments<Sum, T, kLanes>, dim3(static_cast<unsigned>(ceil_div(units * kLanes, kThreads))),
         kThreads, 0, stream, parameters);
  if (S::most_partners(a) < kLongSegment) return;
  constexpr int kBytes = (kLongThreads / kLanes - 1) * S::kFloats * kLanes * static_cast<int>(sizeof(float));
  static_assert(kBytes <= 48 * 1024, "more shared memory than a block gets");
  const dim3 grid(static_cast<unsigned>(smaller(a.segments, 256)), static_cast<unsigned>(owner_heads));
  launch(long_segments<Sum, T, kLanes>, grid, kLongThreads, kBytes, stream, parameters);
}

}  // namespace

void launch_segment_attention(Storage storage, const SegmentAttention& a, Stream stream) {
  with_lanes(storage, a.width, [&](auto zero, auto lanes) {
    launch_sum<Forward, decltype(zero), decltype(lanes)::value>(a, a.queries, a.heads, stream);
  });
}

void launch_segment_attention_backward(Storage storage, const SegmentAttentionBackward& b, Stream stream) {
  const SegmentAttention& a = b.forward;
  with_lanes(storage, a.width, [&](auto zero, auto lanes) {
    launch_sum<GradientOfQ, decltype(zero), decltype(lanes)::value>(b, a.queries, a.heads, stream);
    launch_sum<GradientOfKv, decltype(zero), decltype(lanes)::value>(b, a.keys, a.kv_heads, stream);
  });
}

}  // namespace blt::ops::BLT_DEVICE
