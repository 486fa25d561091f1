// segment_attention on CUDA: tensors to pointers.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include "ops/cuda/glue.h"
#include "ops/cuda/head_packs.h"
#include "ops/segment_attention/check.h"
#include "ops/segment_attention/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

using at::Tensor;

SegmentAttention arguments(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& q_offsets,
                           const Tensor& k_offsets, const Tensor& out, const Tensor& lse, int64_t q_longest,
                           int64_t k_longest, double scale) {
  return {q.const_data_ptr(),
          k.const_data_ptr(),
          v.const_data_ptr(),
          device_offsets("segment_attention", q_offsets),
          device_offsets("segment_attention", k_offsets),
          out.mutable_data_ptr(),
          static_cast<float*>(lse.mutable_data_ptr()),
          q_offsets.numel() - 1,
          q.size(0),
          k.size(0),
          q.size(1),
          k.size(1),
          q.size(2),
          q_longest,
          k_longest,
          static_cast<float>(scale)};
}

std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& q_offsets,
                                   const Tensor& k_offsets, int64_t q_longest, int64_t k_longest,
                                   double scale) {
  check_segment_attention(q, k, v, q_offsets, k_offsets);
  check_head_width("segment_attention", q);
  const Storage storage = storage_of("segment_attention", q);
  const OnDevice device(q);
  Tensor lse = at::empty({q.size(0), q.size(1)}, q.options().dtype(at::kFloat));
  if (q.numel() == 0) return {at::empty_like(q, at::MemoryFormat::Contiguous), lse};
  const Tensor q_ = in_packs(q), k_ = in_packs(k), v_ = in_packs(v);
  const Tensor out = at::empty(q_.sizes(), q_.options());
  launch_segment_attention(storage,
                           arguments(q_, k_, v_, q_offsets, k_offsets, out, lse, q_longest, k_longest, scale),
                           device.stream());
  return {without_padding(out, q.size(2)), lse};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& q, const Tensor& k,
                                            const Tensor& v, const Tensor& out, const Tensor& lse,
                                            const Tensor& q_offsets, const Tensor& k_offsets,
                                            int64_t q_longest, int64_t k_longest, double scale) {
  check_segment_attention_backward(grad, q, k, v, out, lse, q_offsets, k_offsets);
  check_head_width("segment_attention", q);
  const Storage storage = storage_of("segment_attention_backward", q);
  const OnDevice device(q);
  if (q.numel() == 0)  // nobody looks at the keys
    return {at::empty_like(q, at::MemoryFormat::Contiguous), at::zeros_like(k, at::MemoryFormat::Contiguous),
            at::zeros_like(v, at::MemoryFormat::Contiguous)};
  const Tensor q_ = in_packs(q), k_ = in_packs(k), v_ = in_packs(v), grad_ = in_packs(grad),
               out_ = in_packs(out);
  const Tensor lse_ = lse.contiguous();
  const auto like = [](const Tensor& x) { return at::empty(x.sizes(), x.options()); };
  const Tensor grad_q = like(q_), grad_k = like(k_), grad_v = like(v_);
  const SegmentAttention attention =
      arguments(q_, k_, v_, q_offsets, k_offsets, out_, lse_, q_longest, k_longest, scale);
  const Tensor delta = takes_one_pass(attention) ? Tensor() : at::empty_like(lse_);
  launch_segment_attention_backward(
      storage,
      {attention, grad_.const_data_ptr(), delta.defined() ? delta.data_ptr<float>() : nullptr,
       grad_q.mutable_data_ptr(), grad_k.mutable_data_ptr(), grad_v.mutable_data_ptr()},
      device.stream());
  const int64_t width = q.size(2);
  return {without_padding(grad_q, width), without_padding(grad_k, width), without_padding(grad_v, width)};
}

BLT_CUDA_KERNELS(m) {
  m.impl("segment_attention", forward);
  m.impl("segment_attention_backward", backward);
}

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
