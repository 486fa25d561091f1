// window_attention: schema, door, derivative, shapes.
#include "blt/ops/window_attention.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/door.h"
#include "ops/window_attention/check.h"

namespace blt::ops {
namespace {

using at::Tensor;

TORCH_LIBRARY_FRAGMENT(blt, m) {
  m.def(
      "window_attention(Tensor q, Tensor k, Tensor v, Tensor offsets, int longest, int window, float scale) "
      "-> (Tensor, "
      "Tensor lse)");
  m.def(
      "window_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor "
      "offsets, int "
      "longest, int window, float scale) -> (Tensor, Tensor, Tensor)");
}

using Forward = std::tuple<Tensor, Tensor>(const Tensor& q, const Tensor& k, const Tensor& v,
                                           const Tensor& offsets, int64_t longest, int64_t window,
                                           double scale);
using Backward = std::tuple<Tensor, Tensor, Tensor>(const Tensor& grad, const Tensor& q, const Tensor& k,
                                                    const Tensor& v, const Tensor& out, const Tensor& lse,
                                                    const Tensor& offsets, int64_t longest, int64_t window,
                                                    double scale);

struct WindowAttentionFunction : torch::autograd::Function<WindowAttentionFunction> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const Tensor& q,
                                                const Tensor& k, const Tensor& v, const Tensor& offsets,
                                                int64_t longest, int64_t window, double scale) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = schema<Forward>("blt::window_attention");
    auto [out, lse] = op.call(q, k, v, offsets, longest, window, scale);
    context->save_for_backward({q, k, v, out, lse, offsets});
    context->saved_data["longest"] = longest;
    context->saved_data["window"] = window;
    context->saved_data["scale"] = scale;
    context->mark_non_differentiable({lse});
    return {out, lse};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    static const auto op = schema<Backward>("blt::window_attention_backward");
    auto [grad_q, grad_k, grad_v] =
        op.call(grads[0], saved[0], saved[1], saved[2], saved[3], saved[4], saved[5],
                context->saved_data["longest"].toInt(), context->saved_data["window"].toInt(),
                context->saved_data["scale"].toDouble());
    return {grad_q, grad_k, grad_v, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

std::tuple<Tensor, Tensor> autograd(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets,
                                    int64_t longest, int64_t window, double scale) {
  auto result = WindowAttentionFunction::apply(q, k, v, offsets, longest, window, scale);
  return {std::move(result[0]), std::move(result[1])};
}

std::tuple<Tensor, Tensor> meta(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets,
                                int64_t, int64_t window, double) {
  check_window_attention(q, k, v, offsets, window);
  return {q.new_empty(q.sizes()), q.new_empty({q.size(0), q.size(1)}, q.options().dtype(sum_type(q)))};
}

std::tuple<Tensor, Tensor, Tensor> meta_backward(const Tensor& grad, const Tensor& q, const Tensor& k,
                                                 const Tensor& v, const Tensor& out, const Tensor& lse,
                                                 const Tensor& offsets, int64_t, int64_t window, double) {
  check_window_attention_backward(grad, q, k, v, out, lse, offsets, window);
  return {q.new_empty(q.sizes()), k.new_empty(k.sizes()), v.new_empty(v.sizes())};
}

TORCH_LIBRARY_IMPL(blt, Autograd, m) { m.impl("window_attention", autograd); }

TORCH_LIBRARY_IMPL(blt, Meta, m) {
  m.impl("window_attention", meta);
  m.impl("window_attention_backward", meta_backward);
}

}  // namespace

void check_window_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets,
                            int64_t window) {
  TORCH_CHECK(q.dim() == 3 && q.is_floating_point(), "window_attention: q must be [T, H, E] floating, got ",
              q.scalar_type(), " ", q.sizes());
  TORCH_CHECK(k.dim() == 3 && k.size(0) == q.size(0) && k.size(2) == q.size(2) && k.sizes() == v.sizes(),
              "window_attention: k and v must be [", q.size(0), ", Hkv, ", q.size(2), "] like q ", q.sizes(),
              ", got ", k.sizes(), " and ", v.sizes());
  TORCH_CHECK(k.size(1) > 0 && q.size(1) % k.size(1) == 0, "window_attention: the heads of q, ", q.size(1),
              ", must be a multiple of those of k, ", k.size(1));
  TORCH_CHECK(q.size(2) > 0, "window_attention: heads have no width, got q ", q.sizes());
  check_one_type("window_attention", {"q", q}, {{"k", k}, {"v", v}});
  check_one_device("window_attention", {"q", q}, {{"offsets", offsets}});
  TORCH_CHECK(window >= 0, "window_attention: the window must be 0 (all before) or positive, got ", window);
}

void check_window_attention_backward(const Tensor& grad, const Tensor& q, const Tensor& k, const Tensor& v,
                                     const Tensor& out, const Tensor& lse, const Tensor& offsets,
                                     int64_t window) {
  check_window_attention(q, k, v, offsets, window);
  check_one_type("window_attention_backward", {"q", q}, {{"grad", grad}, {"out", out}});
  check_one_device("window_attention_backward", {"q", q}, {{"lse", lse}});
  TORCH_CHECK(grad.sizes() == q.sizes() && out.sizes() == q.sizes(),
              "window_attention_backward: grad and out must be like q ", q.sizes(), ", got ", grad.sizes(),
              " and ", out.sizes());
  TORCH_CHECK(lse.sizes() == q.sizes().slice(0, 2) && lse.scalar_type() == sum_type(q),
              "window_attention_backward: lse must be ", sum_type(q), " ", q.sizes().slice(0, 2), ", got ",
              lse.scalar_type(), " ", lse.sizes());
}

Tensor window_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Segments& documents,
                        int64_t window, double scale) {
  check_window_attention(q, k, v, documents.offsets, window);
  check_covers("window_attention", "q", documents, q);
  static const auto op = schema<Forward>("blt::window_attention");
  return std::get<0>(op.call(q, k, v, documents.offsets, documents.longest, window, scale));
}

}  // namespace blt::ops
