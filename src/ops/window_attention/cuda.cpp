// window_attention on CUDA: LibTorch's flash attention for 16-bit types, kernels of ours for float32.
#include <ATen/core/Tensor.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "ops/cuda/glue.h"
#include "ops/cuda/head_packs.h"
#include "ops/window_attention/check.h"
#include "ops/window_attention/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

using at::Tensor;
using Gradients = std::tuple<Tensor, Tensor, Tensor>;

// Flash attention takes heads of whole packs. An emulation has none.
bool takes_flash([[maybe_unused]] const Tensor& q) {
#ifdef BLT_EMULATED_CUDA
  return false;
#else
  return q.scalar_type() != at::kFloat && q.size(2) % 8 == 0;
#endif
}

std::optional<int64_t> keys_before(int64_t window) {
  return window == 0 ? std::nullopt : std::optional<int64_t>(window - 1);
}

// Its log-sum-exp is [H, T], ours [T, H].
std::tuple<Tensor, Tensor> flash(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets,
                                 int64_t longest, int64_t window, double scale) {
  auto [out, lse, state, unused, mask] = at::_flash_attention_forward(
      q, k, v, offsets, offsets, longest, longest, /*dropout_p=*/0.0, /*is_causal=*/true,
      /*return_debug_mask=*/false, scale, keys_before(window), /*window_size_right=*/0);
  return {out, lse.t().contiguous()};
}

Gradients flash_backward(const Tensor& grad, const Tensor& q, const Tensor& k, const Tensor& v,
                         const Tensor& out, const Tensor& lse, const Tensor& offsets, int64_t longest,
                         int64_t window, double scale) {
  const Tensor state = at::empty({2}, q.options().dtype(at::kLong)),
               unused = at::empty({}, state.options());  // of dropout
  return at::_flash_attention_backward(
      grad, q, k, v, out, lse.t().contiguous(), offsets, offsets, longest, longest,
      /*dropout_p=*/0.0, /*is_causal=*/true, state, unused, scale, keys_before(window),
      /*window_size_right=*/0);
}

WindowAttention arguments(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets,
                          const Tensor& out, const Tensor& lse, int64_t window, double scale) {
  return {q.const_data_ptr(),
          k.const_data_ptr(),
          v.const_data_ptr(),
          device_offsets("window_attention", offsets),
          out.mutable_data_ptr(),
          static_cast<float*>(lse.mutable_data_ptr()),
          offsets.numel() - 1,
          q.size(0),
          q.size(1),
          k.size(1),
          q.size(2),
          window == 0 ? q.size(0) : window,
          static_cast<float>(scale)};
}

std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets,
                                   int64_t longest, int64_t window, double scale) {
  check_window_attention(q, k, v, offsets, window);
  check_head_width("window_attention", q);
  const Storage storage = storage_of("window_attention", q);
  const OnDevice device(q);
  if (q.numel() == 0)
    return {at::empty(q.sizes(), q.options()),
            at::empty({q.size(0), q.size(1)}, q.options().dtype(at::kFloat))};
  const Tensor q_ = in_packs(q), k_ = in_packs(k), v_ = in_packs(v);
  if (takes_flash(q)) return flash(q_, k_, v_, offsets, longest, window, scale);
  const Tensor out = at::empty_like(q_);
  Tensor lse = at::empty({q.size(0), q.size(1)}, q.options().dtype(at::kFloat));
  launch_window_attention(storage, arguments(q_, k_, v_, offsets, out, lse, window, scale), device.stream());
  return {without_padding(out, q.size(2)), lse};
}

Gradients backward(const Tensor& grad, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                   const Tensor& lse, const Tensor& offsets, int64_t longest, int64_t window, double scale) {
  check_window_attention_backward(grad, q, k, v, out, lse, offsets, window);
  check_head_width("window_attention", q);
  const Storage storage = storage_of("window_attention_backward", q);
  const OnDevice device(q);
  const auto like = [](const Tensor& x) { return at::empty(x.sizes(), x.options()); };
  if (q.numel() == 0) return {like(q), like(k), like(v)};
  const Tensor q_ = in_packs(q), k_ = in_packs(k), v_ = in_packs(v), grad_ = in_packs(grad),
               out_ = in_packs(out);
  if (takes_flash(q)) return flash_backward(grad_, q_, k_, v_, out_, lse, offsets, longest, window, scale);
  const Tensor lse_ = lse.contiguous(), delta = at::empty_like(lse_);
  const Tensor grad_q = like(q_), grad_k = like(k_), grad_v = like(v_);
  launch_window_attention_backward(
      storage,
      {arguments(q_, k_, v_, offsets, out_, lse_, window, scale), grad_.const_data_ptr(),
       static_cast<float*>(delta.mutable_data_ptr()), grad_q.mutable_data_ptr(), grad_k.mutable_data_ptr(),
       grad_v.mutable_data_ptr()},
      device.stream());
  const int64_t width = q.size(2);
  return {without_padding(grad_q, width), without_padding(grad_k, width), without_padding(grad_v, width)};
}

BLT_CUDA_KERNELS(m) {
  m.impl("window_attention", forward);
  m.impl("window_attention_backward", backward);
}

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
