// segment_attention: schema, door, derivative, shapes.
#include "blt/ops/segment_attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/door.h"
#include "ops/segment_attention/check.h"

namespace blt::ops {
namespace {

using at::Tensor;

TORCH_LIBRARY_FRAGMENT(blt, m) {
  m.def(
      "segment_attention(Tensor q, Tensor k, Tensor v, Tensor q_offsets, Tensor k_offsets, int q_longest, "
      "int k_longest, float scale) -> (Tensor out, Tensor lse)");
  m.def(
      "segment_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
      "Tensor q_offsets, Tensor k_offsets, int q_longest, int k_longest, float scale) -> "
      "(Tensor grad_q, Tensor grad_k, Tensor grad_v)");
}

using Forward = std::tuple<Tensor, Tensor>(const Tensor& q, const Tensor& k, const Tensor& v,
                                           const Tensor& q_offsets, const Tensor& k_offsets,
                                           int64_t q_longest, int64_t k_longest, double scale);
using Backward = std::tuple<Tensor, Tensor, Tensor>(const Tensor& grad, const Tensor& q, const Tensor& k,
                                                    const Tensor& v, const Tensor& out, const Tensor& lse,
                                                    const Tensor& q_offsets, const Tensor& k_offsets,
                                                    int64_t q_longest, int64_t k_longest, double scale);

struct SegmentAttentionFunction : torch::autograd::Function<SegmentAttentionFunction> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const Tensor& q,
                                                const Tensor& k, const Tensor& v, const Tensor& q_offsets,
                                                const Tensor& k_offsets, int64_t q_longest, int64_t k_longest,
                                                double scale) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = schema<Forward>("blt::segment_attention");
    auto [out, lse] = op.call(q, k, v, q_offsets, k_offsets, q_longest, k_longest, scale);
    context->save_for_backward({q, k, v, out, lse, q_offsets, k_offsets});
    context->saved_data["q_longest"] = q_longest;
    context->saved_data["k_longest"] = k_longest;
    context->saved_data["scale"] = scale;
    context->mark_non_differentiable({lse});
    return {out, lse};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    static const auto op = schema<Backward>("blt::segment_attention_backward");
    auto [q, k, v] =
        op.call(grads[0], saved[0], saved[1], saved[2], saved[3], saved[4], saved[5], saved[6],
                context->saved_data["q_longest"].toInt(), context->saved_data["k_longest"].toInt(),
                context->saved_data["scale"].toDouble());
    return {q, k, v, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

std::tuple<Tensor, Tensor> autograd(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const Tensor& q_offsets, const Tensor& k_offsets, int64_t q_longest,
                                    int64_t k_longest, double scale) {
  auto result = SegmentAttentionFunction::apply(q, k, v, q_offsets, k_offsets, q_longest, k_longest, scale);
  return {std::move(result[0]), std::move(result[1])};
}

std::tuple<Tensor, Tensor> meta(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& q_offsets,
                                const Tensor& k_offsets, int64_t, int64_t, double) {
  check_segment_attention(q, k, v, q_offsets, k_offsets);
  return {at::empty_like(q, at::MemoryFormat::Contiguous),
          q.new_empty({q.size(0), q.size(1)}, q.options().dtype(sum_type(q)))};
}

std::tuple<Tensor, Tensor, Tensor> meta_backward(const Tensor& grad, const Tensor& q, const Tensor& k,
                                                 const Tensor& v, const Tensor& out, const Tensor& lse,
                                                 const Tensor& q_offsets, const Tensor& k_offsets, int64_t,
                                                 int64_t, double) {
  check_segment_attention_backward(grad, q, k, v, out, lse, q_offsets, k_offsets);
  const auto like = [](const Tensor& x) { return at::empty_like(x, at::MemoryFormat::Contiguous); };
  return {like(q), like(k), like(v)};
}

TORCH_LIBRARY_IMPL(blt, Autograd, m) { m.impl("segment_attention", autograd); }

TORCH_LIBRARY_IMPL(blt, Meta, m) {
  m.impl("segment_attention", meta);
  m.impl("segment_attention_backward", meta_backward);
}

}  // namespace

void check_segment_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& q_offsets,
                             const Tensor& k_offsets) {
  TORCH_CHECK(q.dim() == 3, "segment_attention: q must be [Nq, H, E], got ", q.sizes());
  TORCH_CHECK(k.dim() == 3 && k.size(2) == q.size(2), "segment_attention: k must be [Nk, Hkv, ", q.size(2),
              "], got ", k.sizes());
  TORCH_CHECK(v.sizes() == k.sizes(), "segment_attention: v must be like k ", k.sizes(), ", got ", v.sizes());
  TORCH_CHECK(k.size(1) > 0 && q.size(1) % k.size(1) == 0, "segment_attention: ", q.size(1),
              " query heads do not divide among ", k.size(1), " key heads");
  TORCH_CHECK(q.is_floating_point(), "segment_attention: q must be floating, got ", q.scalar_type());
  check_one_type("segment_attention", {"q", q}, {{"k", k}, {"v", v}});
  check_one_device("segment_attention", {"q", q}, {{"q_offsets", q_offsets}, {"k_offsets", k_offsets}});
  TORCH_CHECK(k_offsets.numel() == q_offsets.numel(), "segment_attention: ", q_offsets.numel() - 1,
              " query segments but ", k_offsets.numel() - 1, " key segments");
}

void check_segment_attention_backward(const Tensor& grad, const Tensor& q, const Tensor& k, const Tensor& v,
                                      const Tensor& out, const Tensor& lse, const Tensor& q_offsets,
                                      const Tensor& k_offsets) {
  check_segment_attention(q, k, v, q_offsets, k_offsets);
  check_one_type("segment_attention_backward", {"q", q}, {{"grad", grad}, {"out", out}});
  check_one_device("segment_attention_backward", {"q", q}, {{"lse", lse}});
  TORCH_CHECK(grad.sizes() == q.sizes() && out.sizes() == q.sizes(),
              "segment_attention_backward: grad and out must be like q ", q.sizes(), ", got ", grad.sizes(),
              " and ", out.sizes());
  TORCH_CHECK(lse.sizes() == q.sizes().slice(0, 2) && lse.scalar_type() == sum_type(q),
              "segment_attention_backward: lse must be ", sum_type(q), " ", q.sizes().slice(0, 2), ", got ",
              lse.scalar_type(), " ", lse.sizes());
}

Tensor segment_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Segments& q_segments,
                         const Segments& k_segments, double scale) {
  check_segment_attention(q, k, v, q_segments.offsets, k_segments.offsets);
  check_covers("segment_attention", "q", q_segments, q);
  check_covers("segment_attention", "k", k_segments, k);
  static const auto op = schema<Forward>("blt::segment_attention");
  return std::get<0>(op.call(q, k, v, q_segments.offsets, k_segments.offsets, q_segments.longest,
                             k_segments.longest, scale));
}

}  // namespace blt::ops
