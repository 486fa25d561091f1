// window_attention on CUDA, plain: correct for every type and window, without the matrix units, so far from a GPU's speed. What training in 16
// bits runs is LibTorch's flash attention (cuda.cpp). A few lanes have a row, one writer for each element, one order of additions.
//
// Bound by arithmetic: 4 E operations for each pair of a query and a key that it sees, and 14 E in the backward, which computes scores twice.
#include "ops/cuda/running_softmax.h"
#include "ops/window_attention/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

constexpr int kThreads = 128;

// The row and the head of a group of lanes; a row past the last is none.
struct Owner {
  int64_t row, head;

  __device__ Owner(int64_t heads, int lanes) {
    const int64_t unit = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / lanes;
    row = unit / heads;
    head = unit % heads;
  }
};

// The first key that a query sees, and the first query after a key that does not see it any more.
__device__ int64_t first_key(const WindowAttention& a, int64_t query) {
  const int64_t begin = a.offsets[segment_of(a.offsets, a.documents, query)];
  return query - begin < a.window ? begin : query - a.window + 1;
}
__device__ int64_t last_query(const WindowAttention& a, int64_t key) {
  const int64_t end = a.offsets[segment_of(a.offsets, a.documents, key) + 1];
  return end - key < a.window ? end : key + a.window;
}

template <class T, int kLanes>
__global__ void __launch_bounds__(kThreads) window_kernel(WindowAttention a) {
  using R = Row<T, kLanes>;
  const LaneGroup<kLanes> lanes;
  const Owner own(a.heads, kLanes);
  if (own.row >= a.rows) return;
  const int64_t at = own.row * a.heads + own.head, kv_head = own.head / (a.heads / a.kv_heads);
  const Floats<R::N> q = widen(R::load(a.q, at, a.width, true));
  RunningSoftmax<R::N> sum;
  sum.begin();
  for (int64_t key = first_key(a, own.row); key <= own.row; ++key) {
    const int64_t from = key * a.kv_heads + kv_head;
    float weight[] = {lanes.sum(dot(q, widen(R::load(a.k, from, a.width, true)))) * (a.scale * kLog2E)};
    sum.weigh(weight);
    sum.add(weight[0], widen(R::load(a.v, from, a.width, true)));
  }
  R::store(a.out, at, a.width, sum.result());
  if (lanes.lane == 0) a.lse[at] = sum.log_sum();
}

// Leaves delta, which the gradients of k and v read.
template <class T, int kLanes>
__global__ void __launch_bounds__(kThreads) window_q_kernel(WindowAttentionBackward b) {
  using R = Row<T, kLanes>;
  const WindowAttention& a = b.forward;
  const LaneGroup<kLanes> lanes;
  const Owner own(a.heads, kLanes);
  if (own.row >= a.rows) return;
  const int64_t at = own.row * a.heads + own.head, kv_head = own.head / (a.heads / a.kv_heads);
  const Floats<R::N> q = widen(R::load(a.q, at, a.width, true)),
                     grad = widen(R::load(b.grad, at, a.width, true));
  const float delta = lanes.sum(dot(grad, widen(R::load(a.out, at, a.width, true)))),
              lse = a.lse[at] * kLog2E;
  Floats<R::N> total = zeros<R::N>();
  for (int64_t key = first_key(a, own.row); key <= own.row; ++key) {
    const int64_t from = key * a.kv_heads + kv_head;
    const Floats<R::N> k = widen(R::load(a.k, from, a.width, true));
    const float weight = exp2f(lanes.sum(dot(q, k)) * (a.scale * kLog2E) - lse);
    const float slope = lanes.sum(dot(grad, widen(R::load(a.v, from, a.width, true)))) - delta;
    add_scaled(weight * slope * a.scale, k, &total);
  }
  R::store(b.grad_q, at, a.width, total);
  if (lanes.lane == 0) b.delta[at] = delta;
}

template <class T, int kLanes>
__global__ void __launch_bounds__(kThreads, 2) window_kv_kernel(WindowAttentionBackward b) {
  using R = Row<T, kLanes>;
  const WindowAttention& a = b.forward;
  const LaneGroup<kLanes> lanes;
  const Owner own(a.kv_heads, kLanes);
  if (own.row >= a.rows) return;
  const int64_t at = own.row * a.kv_heads + own.head, group = a.heads / a.kv_heads;
  const Floats<R::N> k = widen(R::load(a.k, at, a.width, true)), v = widen(R::load(a.v, at, a.width, true));
  Floats<R::N> total_k = zeros<R::N>(), total_v = zeros<R::N>();
  const int64_t last = last_query(a, own.row);
  for (int64_t query = own.row; query < last; ++query)
    for (int64_t head = own.head * group; head < (own.head + 1) * group; ++head) {
      const int64_t from = query * a.heads + head;
      const Floats<R::N> q = widen(R::load(a.q, from, a.width, true)),
                         grad = widen(R::load(b.grad, from, a.width, true));
      const float weight = exp2f(lanes.sum(dot(q, k)) * (a.scale * kLog2E) - a.lse[from] * kLog2E);
      add_scaled(weight, grad, &total_v);
      add_scaled(weight * (lanes.sum(dot(grad, v)) - b.delta[from]) * a.scale, q, &total_k);
    }
  R::store(b.grad_k, at, a.width, total_k);
  R::store(b.grad_v, at, a.width, total_v);
}

template <int kLanes>
dim3 blocks(int64_t rows) {
  return dim3(static_cast<unsigned>(ceil_div(rows * kLanes, kThreads)));
}

}  // namespace

void launch_window_attention(Storage storage, const WindowAttention& a, Stream stream) {
  with_lanes(storage, a.width, [&](auto zero, auto lanes) {
    constexpr int kLanes = decltype(lanes)::value;
    launch(window_kernel<decltype(zero), kLanes>, blocks<kLanes>(a.rows * a.heads), kThreads, 0, stream, a);
  });
}

void launch_window_attention_backward(Storage storage, const WindowAttentionBackward& b, Stream stream) {
  const WindowAttention& a = b.forward;
  with_lanes(storage, a.width, [&](auto zero, auto lanes) {
    constexpr int kLanes = decltype(lanes)::value;
    launch(window_q_kernel<decltype(zero), kLanes>, blocks<kLanes>(a.rows * a.heads), kThreads, 0, stream, b);
    launch(window_kv_kernel<decltype(zero), kLanes>, blocks<kLanes>(a.rows * a.kv_heads), kThreads, 0, stream,
           b);
  });
}

}  // namespace blt::ops::BLT_DEVICE
