// segment_attention on CUDA: the forward, and the backward where both sides of some segment have many rows.
//
// Bound by memory. With s bytes an element and rows of E elements, per head (H of the queries, Hkv of the keys):
//   forward          reads q, k, v once, writes out and 4 bytes of log-sum-exp: (2 Nq H + 2 Nk Hkv) E s + 4 Nq H
//   gradient of q    reads q, out, its gradient, k, v, writes the gradient of q: (4 Nq H + 2 Nk Hkv) E s + 8 Nq H
//   gradient of k, v reads q, the gradient of out, k, v, writes two gradients: (2 Nq H + 4 Nk Hkv) E s + 8 Nq H
// Partners are read again for each kTwoOwners owner rows of their segment, from the caches: one group has all of these, one after the other.
#include "ops/cuda/running_softmax.h"
#include "ops/segment_attention/cuda_one_pass.h"
#include "ops/segment_attention/cuda_sums.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kTwoOwners = 2;  // rows that a group of lanes holds at once

// What sums have in common whose owners are queries and whose partners are keys with their values.
template <class T, int kLanesOfRow>
struct QueriesOwn {
  static constexpr int kLanes = kLanesOfRow, kOwners = kTwoOwners;
  static constexpr bool kWithoutOwners = false;
  BLT_HOST_DEVICE static int64_t heads(const SegmentAttention& a) { return a.heads; }
  __device__ static int64_t owners(const SegmentAttention& a, int64_t segment) {
    return queries_of(a, segment);
  }
  __device__ static int64_t partners(const SegmentAttention& a, int64_t segment) {
    return keys_of(a, segment);
  }
  __device__ static int64_t owners_begin(const SegmentAttention& a, int64_t segment) {
    return a.q_offsets[segment];
  }
  __device__ static int64_t partners_begin(const SegmentAttention& a, int64_t segment) {
    return a.k_offsets[segment];
  }
  static int64_t most_owners(const SegmentAttention& a) { return a.q_longest; }
  static int64_t most_partners(const SegmentAttention& a) { return a.k_longest; }

  __device__ static int64_t owner_row(const SegmentAttention& a, const Chunk& chunk, int r) {
    return (chunk.owners_begin + chunk.first + r) * a.heads + chunk.head;
  }

  // Partners j, j + step, ...; zeros from `last` on.
  template <int N, int kPartners>
  __device__ static void load_partners(const SegmentAttention& a, const Chunk& chunk, int64_t j, int64_t last,
                                       int64_t step, Pack<T, N> (&k)[kPartners], Pack<T, N> (&v)[kPartners]) {
    const int64_t head = chunk.head / (a.heads / a.kv_heads);
#pragma unroll
    for (int p = 0; p < kPartners; ++p) {
      const bool valid = j + p * step < last;
      const int64_t row = (chunk.partners_begin + j + p * step) * a.kv_heads + head;
      k[p] = Row<T, kLanes>::load(a.k, row, a.width, valid);
      v[p] = Row<T, kLanes>::load(a.v, row, a.width, valid);
    }
  }
};

// Queries own, keys pass: softmax(scale q k^T) v with a running maximum, in powers of 2.
template <class T, int kLanesOfRow>
struct Forward : QueriesOwn<T, kLanesOfRow> {
  using Side = QueriesOwn<T, kLanesOfRow>;
  using Side::kLanes, Side::kOwners;
  using Parameters = SegmentAttention;
  static constexpr int N = kPackOf<T>, kPartners = kPartnersOf<T>;
  using Sum = RunningSoftmax<N>;
  static constexpr int kFloats = kOwners * Sum::kFloats;  // what is put together of one thread's state

  const SegmentAttention& a;
  LaneGroup<kLanes> lanes;
  Floats<N> q[kOwners];
  Sum sums[kOwners];

  __device__ explicit Forward(const SegmentAttention& parameters) : a(parameters) {}

  __device__ static const SegmentAttention& attention(const Parameters& p) { return p; }

  __device__ void begin(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kOwners; ++r) {
      q[r] = widen(Row<T, kLanes>::load(a.q, Side::owner_row(a, chunk, r), a.width, r < chunk.count));
      sums[r].begin();
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
      take_in(sums, score, v);
    }
  }

  template <class Put>
  __device__ void put(const Put& to) const {
#pragma unroll
    for (int r = 0; r < kOwners; ++r)
      sums[r].put([&](int i, float value) { to(r * Sum::kFloats + i, value); });
  }

  // Adds what other lanes put, of other partners.
  template <class From>
  __device__ void add(const From& from) {
#pragma unroll
    for (int r = 0; r < kOwners; ++r)
      sums[r].add(Sum::got([&](int i) { return from(r * Sum::kFloats + i); }));
  }

  __device__ void end(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kOwners; ++r) {
      if (r >= chunk.count) continue;
      const int64_t row = Side::owner_row(a, chunk, r);
      Row<T, kLanes>::store(a.out, row, a.width, sums[r].result());
      if (lanes.lane == 0) a.lse[row] = sums[r].log_sum();
    }
  }
};

// Queries own, keys pass. Leaves delta, which the gradients of k and v read.
template <class T, int kLanesOfRow>
struct GradientOfQ : QueriesOwn<T, kLanesOfRow> {
  using Side = QueriesOwn<T, kLanesOfRow>;
  using Side::kLanes, Side::kOwners;
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
      const int64_t row = Side::owner_row(a, chunk, r);
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
    put_rows(total, 0, to);
  }

  template <class From>
  __device__ void add(const From& from) {
    add_rows(total, 0, from);
  }

  __device__ void end(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kOwners; ++r) {
      if (r >= chunk.count) continue;
      const int64_t row = Side::owner_row(a, chunk, r);
      Row<T, kLanes>::store(b.grad_q, row, a.width, total[r]);
      if (lanes.lane == 0) b.delta[row] = delta[r];
    }
  }
};

// Keys own, the queries of all heads that share them pass. Without queries the gradients are 0.
template <class T, int kLanesOfRow>
struct GradientOfKv {
  static constexpr int kLanes = kLanesOfRow, kOwners = kTwoOwners;
  static constexpr bool kWithoutOwners = false;
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
  BLT_HOST_DEVICE static int64_t heads(const SegmentAttention& a) { return a.kv_heads; }
  __device__ static int64_t owners(const SegmentAttention& a, int64_t segment) { return keys_of(a, segment); }
  __device__ static int64_t partners(const SegmentAttention& a, int64_t segment) {
    return queries_of(a, segment) * (a.heads / a.kv_heads);
  }
  __device__ static int64_t owners_begin(const SegmentAttention& a, int64_t segment) {
    return a.k_offsets[segment];
  }
  __device__ static int64_t partners_begin(const SegmentAttention& a, int64_t segment) {
    return a.q_offsets[segment];
  }
  static int64_t most_owners(const SegmentAttention& a) { return a.k_longest; }
  static int64_t most_partners(const SegmentAttention& a) { return a.q_longest * (a.heads / a.kv_heads); }

  __device__ void begin(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kOwners; ++r) {
      const int64_t row = (chunk.owners_begin + chunk.first + r) * a.kv_heads + chunk.head;
      k[r] = widen(Row<T, kLanes>::load(a.k, row, a.width, r < chunk.count));
      v[r] = widen(Row<T, kLanes>::load(a.v, row, a.width, r < chunk.count));
      total_k[r] = zeros<N>();
      total_v[r] = zeros<N>();
    }
  }

  __device__ void go_through(const Chunk& chunk, int64_t first, int64_t last, int64_t step) {
    const int64_t group = a.heads / a.kv_heads;
    for (int64_t j = first; j < last; j += kPartners * step) {
      Pack<T, N> q[kPartners], grad[kPartners];
      float lse[kPartners], delta[kPartners];
#pragma unroll
      for (int p = 0; p < kPartners; ++p) {
        const int64_t partner = j + p * step;
        const bool valid = partner < last;
        const int64_t row =
            (chunk.partners_begin + partner / group) * a.heads + chunk.head * group + partner % group;
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
    put_rows(total_k, 0, to);
    put_rows(total_v, kOwners * N, to);
  }

  template <class From>
  __device__ void add(const From& from) {
    add_rows(total_k, 0, from);
    add_rows(total_v, kOwners * N, from);
  }

  __device__ void end(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kOwners; ++r) {
      if (r >= chunk.count) continue;
      const int64_t row = (chunk.owners_begin + chunk.first + r) * a.kv_heads + chunk.head;
      Row<T, kLanes>::store(b.grad_k, row, a.width, total_k[r]);
      Row<T, kLanes>::store(b.grad_v, row, a.width, total_v[r]);
    }
  }
};

}  // namespace

void launch_segment_attention(Storage storage, const SegmentAttention& a, Stream stream) {
  with_lanes(storage, a.width, [&](auto zero, auto lanes) {
    launch_sum<Forward<decltype(zero), decltype(lanes)::value>>(a, stream);
  });
}

void launch_segment_attention_backward(Storage storage, const SegmentAttentionBackward& b, Stream stream) {
  if (takes_one_pass(b.forward)) return launch_segment_attention_in_one_pass(storage, b, stream);
  with_lanes(storage, b.forward.width, [&](auto zero, auto lanes) {
    launch_sum<GradientOfQ<decltype(zero), decltype(lanes)::value>>(b, stream);
    launch_sum<GradientOfKv<decltype(zero), decltype(lanes)::value>>(b, stream);
  });
}

}  // namespace blt::ops::BLT_DEVICE
