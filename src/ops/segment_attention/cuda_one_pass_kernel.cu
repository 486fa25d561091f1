// The backward of segment_attention in one pass: the few rows of one side of a segment, all of them, stay in registers with their gradients; the
// rows of the other side pass by, and their gradients are whole when they have. Nothing is read twice:
//
//   reads q, out, its gradient, k, v and the log-sum-exp, writes three gradients: (4 Nq H + 4 Nk Hkv) E s + 4 Nq H bytes
#include "ops/segment_attention/cuda_one_pass.h"
#include "ops/segment_attention/cuda_sums.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kPassing = 2;  // rows that are asked for at once

// What both have in common: a group has a head of the keys, and all the queries that share it, number q of a segment in the order of their rows.
template <class T, int kLanesOfRow, int kFew>
struct OnePass {
  using Parameters = SegmentAttentionBackward;
  static constexpr int kLanes = kLanesOfRow, N = kPackOf<T>, kOwners = kFew;
  using Rows = Row<T, kLanes>;

  const SegmentAttentionBackward& b;
  const SegmentAttention& a;
  LaneGroup<kLanes> lanes;

  __device__ explicit OnePass(const SegmentAttentionBackward& parameters)
      : b(parameters), a(parameters.forward) {}

  __device__ static const SegmentAttention& attention(const Parameters& p) { return p.forward; }
  BLT_HOST_DEVICE static int64_t heads(const SegmentAttention& a) { return a.kv_heads; }
  BLT_HOST_DEVICE static int64_t sharing(const SegmentAttention& a) { return a.heads / a.kv_heads; }

  __device__ int64_t query_row(int64_t begin, int64_t head, int64_t q) const {
    const int64_t group = sharing(a);
    return (begin + q / group) * a.heads + head * group + q % group;
  }
  __device__ int64_t key_row(int64_t begin, int64_t head, int64_t k) const {
    return (begin + k) * a.kv_heads + head;
  }
  __device__ float weight_of(const Floats<N>& query, const Floats<N>& key, float lse) const {
    return exp2f(lanes.sum(dot(query, key)) * (a.scale * kLog2E) - lse);
  }
};

// Few queries, as of the encoder: keys pass by.
template <class T, int kLanesOfRow, int kFew>
struct FewQueries : OnePass<T, kLanesOfRow, kFew> {
  using Base = OnePass<T, kLanesOfRow, kFew>;
  using Base::a, Base::b, Base::lanes, Base::kLanes, Base::N;
  using Rows = typename Base::Rows;
  static constexpr bool kWithoutOwners = true;  // keys that no query sees have gradients of 0
  static constexpr int kFloats = kFew * N;

  Pack<T, N> q[kFew], grad[kFew];
  Floats<N> grad_q[kFew];
  float lse[kFew], delta[kFew];

  using Base::Base;

  __device__ static int64_t owners(const SegmentAttention& a, int64_t segment) {
    return queries_of(a, segment) * Base::sharing(a);
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
  static int64_t most_owners(const SegmentAttention& a) { return a.q_longest * Base::sharing(a); }
  static int64_t most_partners(const SegmentAttention& a) { return a.k_longest; }

  __device__ void begin(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kFew; ++r) {
      const bool valid = r < chunk.count;
      const int64_t row = this->query_row(chunk.owners_begin, chunk.head, chunk.first + r);
      q[r] = Rows::load(a.q, row, a.width, valid);
      grad[r] = Rows::load(b.grad, row, a.width, valid);
      delta[r] = lanes.sum(dot(widen(grad[r]), widen(Rows::load(a.out, row, a.width, valid))));
      lse[r] = valid ? a.lse[row] * kLog2E : 0;
      grad_q[r] = zeros<N>();
    }
  }

  __device__ void go_through(const Chunk& chunk, int64_t first, int64_t last, int64_t step) {
    for (int64_t j = first; j < last; j += kPassing * step) {
      Pack<T, N> k[kPassing], v[kPassing];
#pragma unroll
      for (int p = 0; p < kPassing; ++p) {
        const int64_t row = this->key_row(chunk.partners_begin, chunk.head, j + p * step);
        k[p] = Rows::load(a.k, row, a.width, j + p * step < last);
        v[p] = Rows::load(a.v, row, a.width, j + p * step < last);
      }
#pragma unroll
      for (int p = 0; p < kPassing; ++p) {
        if (j + p * step >= last) continue;
        const Floats<N> key = widen(k[p]), value = widen(v[p]);
        Floats<N> grad_k = zeros<N>(), grad_v = zeros<N>();
#pragma unroll
        for (int r = 0; r < kFew; ++r) {
          if (r >= chunk.count) continue;
          const Floats<N> query = widen(q[r]), slopes = widen(grad[r]);
          const float weight = this->weight_of(query, key, lse[r]);
          const float slope = weight * (lanes.sum(dot(slopes, value)) - delta[r]) * a.scale;
          add_scaled(slope, query, &grad_k);
          add_scaled(weight, slopes, &grad_v);
          add_scaled(slope, key, &grad_q[r]);
        }
        const int64_t row = this->key_row(chunk.partners_begin, chunk.head, j + p * step);
        Rows::store(b.grad_k, row, a.width, grad_k);
        Rows::store(b.grad_v, row, a.width, grad_v);
      }
    }
  }

  template <class Put>
  __device__ void put(const Put& to) const {
    put_rows(grad_q, 0, to);
  }

  template <class From>
  __device__ void add(const From& from) {
    add_rows(grad_q, 0, from);
  }

  __device__ void end(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kFew; ++r) {
      if (r >= chunk.count) continue;
      const int64_t row = this->query_row(chunk.owners_begin, chunk.head, chunk.first + r);
      Rows::store(b.grad_q, row, a.width, grad_q[r]);
    }
  }
};

// Few keys, as of the decoder: queries pass by.
template <class T, int kLanesOfRow, int kFew>
struct FewKeys : OnePass<T, kLanesOfRow, kFew> {
  using Base = OnePass<T, kLanesOfRow, kFew>;
  using Base::a, Base::b, Base::lanes, Base::kLanes, Base::N;
  using Rows = typename Base::Rows;
  static constexpr bool kWithoutOwners = false;  // every segment has keys
  static constexpr int kFloats = 2 * kFew * N;

  Pack<T, N> k[kFew], v[kFew];
  Floats<N> grad_k[kFew], grad_v[kFew];

  using Base::Base;

  __device__ static int64_t owners(const SegmentAttention& a, int64_t segment) { return keys_of(a, segment); }
  __device__ static int64_t partners(const SegmentAttention& a, int64_t segment) {
    return queries_of(a, segment) * Base::sharing(a);
  }
  __device__ static int64_t owners_begin(const SegmentAttention& a, int64_t segment) {
    return a.k_offsets[segment];
  }
  __device__ static int64_t partners_begin(const SegmentAttention& a, int64_t segment) {
    return a.q_offsets[segment];
  }
  static int64_t most_owners(const SegmentAttention& a) { return a.k_longest; }
  static int64_t most_partners(const SegmentAttention& a) { return a.q_longest * Base::sharing(a); }

  __device__ void begin(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kFew; ++r) {
      const int64_t row = this->key_row(chunk.owners_begin, chunk.head, chunk.first + r);
      k[r] = Rows::load(a.k, row, a.width, r < chunk.count);
      v[r] = Rows::load(a.v, row, a.width, r < chunk.count);
      grad_k[r] = zeros<N>();
      grad_v[r] = zeros<N>();
    }
  }

  __device__ void go_through(const Chunk& chunk, int64_t first, int64_t last, int64_t step) {
    for (int64_t j = first; j < last; j += kPassing * step) {
      Pack<T, N> q[kPassing], grad[kPassing], out[kPassing];
      float lse[kPassing];
#pragma unroll
      for (int p = 0; p < kPassing; ++p) {
        const bool valid = j + p * step < last;
        const int64_t row = this->query_row(chunk.partners_begin, chunk.head, j + p * step);
        q[p] = Rows::load(a.q, row, a.width, valid);
        grad[p] = Rows::load(b.grad, row, a.width, valid);
        out[p] = Rows::load(a.out, row, a.width, valid);
        lse[p] = valid ? a.lse[row] * kLog2E : 0;
      }
#pragma unroll
      for (int p = 0; p < kPassing; ++p) {
        if (j + p * step >= last) continue;
        const Floats<N> query = widen(q[p]), slopes = widen(grad[p]);
        const float delta = lanes.sum(dot(slopes, widen(out[p])));
        Floats<N> grad_q = zeros<N>();
#pragma unroll
        for (int r = 0; r < kFew; ++r) {
          if (r >= chunk.count) continue;
          const Floats<N> key = widen(k[r]);
          const float weight = this->weight_of(query, key, lse[p]);
          const float slope = weight * (lanes.sum(dot(slopes, widen(v[r]))) - delta) * a.scale;
          add_scaled(slope, key, &grad_q);
          add_scaled(slope, query, &grad_k[r]);
          add_scaled(weight, slopes, &grad_v[r]);
        }
        Rows::store(b.grad_q, this->query_row(chunk.partners_begin, chunk.head, j + p * step), a.width,
                    grad_q);
      }
    }
  }

  template <class Put>
  __device__ void put(const Put& to) const {
    put_rows(grad_k, 0, to);
    put_rows(grad_v, kFew * N, to);
  }

  template <class From>
  __device__ void add(const From& from) {
    add_rows(grad_k, 0, from);
    add_rows(grad_v, kFew * N, from);
  }

  __device__ void end(const Chunk& chunk) {
#pragma unroll
    for (int r = 0; r < kFew; ++r) {
      if (r >= chunk.count) continue;
      const int64_t row = this->key_row(chunk.owners_begin, chunk.head, chunk.first + r);
      Rows::store(b.grad_k, row, a.width, grad_k[r]);
      Rows::store(b.grad_v, row, a.width, grad_v[r]);
    }
  }
};

constexpr int64_t kMostFew = 4;

int64_t most_queries(const SegmentAttention& a) { return a.q_longest * (a.heads / a.kv_heads); }

template <template <class, int, int> class Sum>
void launch_few(Storage storage, const SegmentAttentionBackward& b, int64_t few, Stream stream) {
  with_lanes(storage, b.forward.width, [&](auto zero, auto lanes) {
    if (few <= 2)
      launch_sum<Sum<decltype(zero), decltype(lanes)::value, 2>>(b, stream);
    else
      launch_sum<Sum<decltype(zero), decltype(lanes)::value, 4>>(b, stream);
  });
}

}  // namespace

bool takes_one_pass(const SegmentAttention& a) {
  return most_queries(a) <= kMostFew || a.k_longest <= kMostFew;
}

void launch_segment_attention_in_one_pass(Storage storage, const SegmentAttentionBackward& b, Stream stream) {
  if (most_queries(b.forward) <= kMostFew)
    launch_few<FewQueries>(storage, b, most_queries(b.forward), stream);
  else
    launch_few<FewKeys>(storage, b, b.forward.k_longest, stream);
}

}  // namespace blt::ops::BLT_DEVICE
