// Attention of each query over the few keys of its segment.
//
// Vectors run along the head width, so that what a row gets depends on its own segment alone. Keys are taken in blocks with a running
// maximum: a segment may be long, memory stays a block's.
#include "ops/segment_attention/cpu_kernel.h"

#include "ops/cpu/simd.h"

namespace blt::ops::BLT_ISA {
namespace {

constexpr int64_t kBlock = 64;  // keys

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <class T>
Vec<T> load_some(const T* from, int64_t left) {
  return left >= kLanes<T> ? load(from) : load(from, left);
}

template <class T>
void store_some(T* to, const Vec<T>& value, int64_t left) {
  if (left >= kLanes<T>)
    store(to, value);
  else
    store(to, value, left);
}

template <class T>
T dot(const T* a, const T* b, int64_t width) {
  Vec<T> total = zeros<T>();
  int64_t e = 0;
  for (; e + kLanes<T> <= width; e += kLanes<T>) total = fma(load(a + e), load(b + e), total);
  if (e < width) total = fma(load(a + e, width - e), load(b + e, width - e), total);
  return sum(total);
}

float log(float x) { return __builtin_logf(x); }
double log(double x) { return __builtin_log(x); }

// scale * (q . each of `keys` rows of k), then -inf up to a whole vector.
template <class T>
void scores(const T* q, const T* k, int64_t stride, int64_t keys, int64_t width, T scale, T* result) {
  for (int64_t j = 0; j < keys; ++j) result[j] = scale * dot(q, k + j * stride, width);
  for (int64_t j = keys; j % kLanes<T> != 0; ++j) result[j] = -static_cast<T>(__builtin_inf());
}

// One query: softmax(scale q k^T) v over `keys` rows, and the log of the sum of the exponentials.
template <class T>
void attend(const T* q, const T* k, const T* v, int64_t stride, int64_t keys, int64_t width, T scale, T* out,
            T* lse) {
  T highest = -static_cast<T>(__builtin_inf());
  T total = 0;
  for (int64_t start = 0; start < keys; start += kBlock) {
    const int64_t n = smaller(kBlock, keys - start);
    alignas(kVectorBytes) T weights[kBlock];
    scores(q, k + start * stride, stride, n, width, scale, weights);
    Vec<T> block_highest = splat(highest);
    for (int64_t j = 0; j < n; j += kLanes<T>) block_highest = max(load(weights + j), block_highest);
    const T before = highest;
    highest = max_lane(block_highest);
    Vec<T> block_total = zeros<T>();
    for (int64_t j = 0; j < n; j += kLanes<T>) {
      const Vec<T> weight = exp(load(weights + j) - splat(highest));
      store(weights + j, weight);
      block_total += weight;
    }
    const T shrink = start == 0 ? 0 : exp(splat(before - highest))[0];
    total = total * shrink + sum(block_total);
    for (int64_t e = 0; e < width; e += kLanes<T>) {
      Vec<T> value = start == 0 ? zeros<T>() : load_some(out + e, width - e) * splat(shrink);
      const T* column = v + start * stride + e;
      for (int64_t j = 0; j < n; ++j)
        value = fma(splat(weights[j]), load_some(column + j * stride, width - e), value);
      store_some(out + e, value, width - e);
    }
  }
  const Vec<T> share = splat(static_cast<T>(1) / total);
  for (int64_t e = 0; e < width; e += kLanes<T>)
    store_some(out + e, load_some(out + e, width - e) * share, width - e);
  *lse = highest + log(total);
}

// One query against one block of keys (`whole`: all that it sees): adds to the gradients of all of them (sets the query's with the first block).
template <class T>
void attend_backward(const T* q, const T* k, const T* v, int64_t stride, int64_t keys, int64_t width, T scale,
                     const T* out, T lse, const T* grad, bool first_block, bool whole, T* grad_q, T* grad_k,
                     T* grad_v) {
  alignas(kVectorBytes) T weights[kBlock];
  alignas(kVectorBytes) T slopes[kBlock];  // of the scores
  scores(q, k, stride, keys, width, scale, weights);
  scores(grad, v, stride, keys, width, static_cast<T>(1), slopes);
  for (int64_t j = keys; j % kLanes<T> != 0; ++j) slopes[j] = 0;
  Vec<T> means = zeros<T>();
  for (int64_t j = 0; j < keys; j += kLanes<T>) {
    const Vec<T> weight = exp(load(weights + j) - splat(lse));
    store(weights + j, weight);
    means += weight * load(slopes + j);
  }
  // The mean slope of the weights. With all keys at hand it is exact where `out` was rounded to 16 bits.
  const Vec<T> mean = splat(whole ? sum(means) : dot(grad, out, width));
  for (int64_t j = 0; j < keys; j += kLanes<T>)
    store(slopes + j, load(weights + j) * (load(slopes + j) - mean) * splat(scale));
  for (int64_t e = 0; e < width; e += kLanes<T>) {
    const int64_t left = width - e;
    const Vec<T> q_e = load_some(q + e, left), grad_e = load_some(grad + e, left);
    Vec<T> total = first_block ? zeros<T>() : load_some(grad_q + e, left);
    for (int64_t j = 0; j < keys; ++j) {
      const int64_t at = j * stride + e;
      total = fma(splat(slopes[j]), load_some(k + at, left), total);
      store_some(grad_k + at, fma(splat(slopes[j]), q_e, load_some(grad_k + at, left)), left);
      store_some(grad_v + at, fma(splat(weights[j]), grad_e, load_some(grad_v + at, left)), left);
    }
    store_some(grad_q + e, total, left);
  }
}

}  // namespace

template <class T>
void segment_attention(const SegmentAttention<T>& a, int64_t first_unit, int64_t last_unit) {
  const int64_t group = a.heads / a.kv_heads;
  const int64_t stride = a.kv_heads * a.width;
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t segment = unit / a.kv_heads, kv_head = unit % a.kv_heads;
    const int64_t first_key = a.k_offsets[segment];
    const int64_t keys = a.k_offsets[segment + 1] - first_key;
    const int64_t kv_at = first_key * stride + kv_head * a.width;
    for (int64_t i = a.q_offsets[segment]; i < a.q_offsets[segment + 1]; ++i)
      for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
        const int64_t row = i * a.heads + h;
        attend(a.q + row * a.width, a.k + kv_at, a.v + kv_at, stride, keys, a.width, a.scale,
               a.out + row * a.width, a.lse + row);
      }
  }
}

// A block of keys meets all queries before the next one, so that its four blocks of rows stay in the cache.
template <class T>
void segment_attention_backward(const SegmentAttentionBackward<T>& b, int64_t first_unit, int64_t last_unit) {
  const SegmentAttention<T>& a = b.forward;
  const int64_t group = a.heads / a.kv_heads;
  const int64_t stride = a.kv_heads * a.width;
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t segment = unit / a.kv_heads, kv_head = unit % a.kv_heads;
    const int64_t first_key = a.k_offsets[segment], last_key = a.k_offsets[segment + 1];
    for (int64_t start = first_key; start < last_key; start += kBlock) {
      const int64_t keys = smaller(kBlock, last_key - start);
      const int64_t kv_at = start * stride + kv_head * a.width;
      for (int64_t j = 0; j < keys; ++j)
        for (int64_t e = 0; e < a.width; e += kLanes<T>) {
          store_some(b.grad_k + kv_at + j * stride + e, zeros<T>(), a.width - e);
          store_some(b.grad_v + kv_at + j * stride + e, zeros<T>(), a.width - e);
        }
      for (int64_t i = a.q_offsets[segment]; i < a.q_offsets[segment + 1]; ++i)
        for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
          const int64_t row = i * a.heads + h, at = row * a.width;
          attend_backward(a.q + at, a.k + kv_at, a.v + kv_at, stride, keys, a.width, a.scale, a.out + at,
                          a.lse[row], b.grad + at, start == first_key, keys == last_key - first_key,
                          b.grad_q + at, b.grad_k + kv_at, b.grad_v + kv_at);
        }
    }
  }
}

template void segment_attention(const SegmentAttention<float>&, int64_t, int64_t);
template void segment_attention(const SegmentAttention<double>&, int64_t, int64_t);
template void segment_attention_backward(const SegmentAttentionBackward<float>&, int64_t, int64_t);
template void segment_attention_backward(const SegmentAttentionBackward<double>&, int64_t, int64_t);

}  // namespace blt::ops::BLT_ISA
