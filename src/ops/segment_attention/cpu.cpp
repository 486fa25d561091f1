// segment_attention on the CPU: tensors to pointers, work to threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "ops/cpu/parallel_segments.h"
#include "ops/door.h"
#include "ops/segment_attention/check.h"
#include "ops/segment_attention/cpu_kernel.h"

namespace blt::ops {
namespace {

using at::Tensor;

// float and double have kernels; the 16-bit types go through float.
at::ScalarType kernel_type(const Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// The two offset arrays, checked against each other and against the rows that they cut.
struct Offsets {
  const int32_t* q;
  const int32_t* k;
  int64_t count;

  Offsets(const Tensor& q_offsets, const Tensor& k_offsets, int64_t q_rows, int64_t k_rows)
      : q(checked_offsets("segment_attention", q_offsets, q_rows)),
        k(checked_offsets("segment_attention", k_offsets, k_rows)),
        count(q_offsets.numel() - 1) {
    for (int64_t s = 0; s < count; ++s)
      TORCH_CHECK(k[s] < k[s + 1], "segment_attention: key segment ", s, " is empty");
  }

  // Multiplications for one key head of a segment, and what it costs to come by.
  int64_t cost(int64_t s, int64_t group, int64_t width) const {
    const int64_t queries = q[s + 1] - q[s], keys = k[s + 1] - k[s];
    return (queries * group + 1) * (keys + 1) * width;
  }
};

constexpr int64_t kGrain = 1 << 16;

template <class T>
SegmentAttention<T> arguments(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                              const Tensor& lse, const Offsets& offsets, double scale) {
  return {q.const_data_ptr<T>(),
          k.const_data_ptr<T>(),
          v.const_data_ptr<T>(),
          offsets.q,
          offsets.k,
          out.data_ptr<T>(),
          lse.data_ptr<T>(),
          q.size(1),
          k.size(1),
          q.size(2),
          static_cast<T>(scale)};
}

template <class T>
void run(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
         const Offsets& offsets, double scale) {
  const SegmentAttention<T> a = arguments<T>(q, k, v, out, lse, offsets, scale);
  const auto kernel = BLT_KERNEL(segment_attention<T>);
  parallel_over_segments(
      offsets.count, a.kv_heads, kGrain,
      [&](int64_t s) { return offsets.cost(s, a.heads / a.kv_heads, a.width); },
      [&](int64_t first, int64_t last) { kernel(a, first, last); });
}

template <class T>
void run_backward(const Tensor& grad, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                  const Tensor& lse, const Offsets& offsets, double scale, const Tensor& grad_q,
                  const Tensor& grad_k, const Tensor& grad_v) {
  const SegmentAttentionBackward<T> b{arguments<T>(q, k, v, out, lse, offsets, scale),
                                      grad.const_data_ptr<T>(), grad_q.data_ptr<T>(), grad_k.data_ptr<T>(),
                                      grad_v.data_ptr<T>()};
  const auto kernel = BLT_KERNEL(segment_attention_backward<T>);
  const SegmentAttention<T>& a = b.forward;
  parallel_over_segments(
      offsets.count, a.kv_heads, kGrain,
      [&](int64_t s) { return 3 * offsets.cost(s, a.heads / a.kv_heads, a.width); },
      [&](int64_t first, int64_t last) { kernel(b, first, last); });
}

std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& q_offsets,
                                   const Tensor& k_offsets, int64_t, int64_t, double scale) {
  check_segment_attention(q, k, v, q_offsets, k_offsets);
  const Offsets offsets(q_offsets, k_offsets, q.size(0), k.size(0));
  const auto type = kernel_type(q);
  const Tensor q_ = q.to(type).contiguous(), k_ = k.to(type).contiguous(), v_ = v.to(type).contiguous();
  Tensor out = at::empty_like(q_);
  Tensor lse = at::empty({q.size(0), q.size(1)}, q_.options());
  if (type == at::kDouble)
    run<double>(q_, k_, v_, out, lse, offsets, scale);
  else
    run<float>(q_, k_, v_, out, lse, offsets, scale);
  return {out.to(q.scalar_type()), lse};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& q, const Tensor& k,
                                            const Tensor& v, const Tensor& out, const Tensor& lse,
                                            const Tensor& q_offsets, const Tensor& k_offsets, int64_t,
                                            int64_t, double scale) {
  check_segment_attention_backward(grad, q, k, v, out, lse, q_offsets, k_offsets);
  const Offsets offsets(q_offsets, k_offsets, q.size(0), k.size(0));
  const auto type = kernel_type(q);
  const auto ready = [type](const Tensor& x) { return x.to(type).contiguous(); };
  const Tensor q_ = ready(q), k_ = ready(k), v_ = ready(v);
  Tensor grad_q = at::empty_like(q_), grad_k = at::empty_like(k_), grad_v = at::empty_like(v_);
  if (type == at::kDouble)
    run_backward<double>(ready(grad), q_, k_, v_, ready(out), ready(lse), offsets, scale, grad_q, grad_k,
                         grad_v);
  else
    run_backward<float>(ready(grad), q_, k_, v_, ready(out), ready(lse), offsets, scale, grad_q, grad_k,
                        grad_v);
  return {grad_q.to(q.scalar_type()), grad_k.to(k.scalar_type()), grad_v.to(v.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(blt, CPU, m) {
  m.impl("segment_attention", forward);
  m.impl("segment_attention_backward", backward);
}

}  // namespace blt::ops
