// rms_norm: schema, door, derivative, shapes.
#include "blt/ops/rms_norm.h"

#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/door.h"
#include "ops/rms_norm/check.h"

namespace blt::ops {
namespace {

using at::Tensor;

TORCH_LIBRARY_FRAGMENT(blt, m) {
  // inverse [N]: 1 / sqrt(mean(x^2) + eps) of each row, float32 (float64 for float64 x).
  m.def("rms_norm(Tensor x, Tensor weight, float eps) -> (Tensor out, Tensor inverse)");
  m.def(
      "add_rms_norm(Tensor x, Tensor added, Tensor weight, float eps) -> (Tensor sum, Tensor out, Tensor "
      "inverse)");
  // grad_stream, where there is one, is added to grad_x: what x, or the sum, hands on besides its norm.
  m.def(
      "rms_norm_backward(Tensor grad, Tensor x, Tensor weight, Tensor inverse, Tensor? grad_stream=None) -> "
      "(Tensor grad_x, Tensor grad_weight)");
}

using OptionalTensor = std::optional<Tensor>;
using Forward = std::tuple<Tensor, Tensor>(const Tensor& x, const Tensor& weight, double eps);
using SumForward = std::tuple<Tensor, Tensor, Tensor>(const Tensor& x, const Tensor& added,
                                                      const Tensor& weight, double eps);
using Backward = std::tuple<Tensor, Tensor>(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                            const Tensor& inverse, const OptionalTensor& grad_stream);

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const Tensor& x,
                                                const Tensor& weight, double eps) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = schema<Forward>("blt::rms_norm");
    auto [out, inverse] = op.call(x, weight, eps);
    context->save_for_backward({x, weight, inverse});
    context->mark_non_differentiable({inverse});
    return {out, inverse};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    static const auto op = schema<Backward>("blt::rms_norm_backward");
    auto [grad_x, grad_weight] = op.call(grads[0], saved[0], saved[1], saved[2], std::nullopt);
    return {grad_x, grad_weight, Tensor()};
  }
};

struct AddRmsNormFunction : torch::autograd::Function<AddRmsNormFunction> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const Tensor& x,
                                                const Tensor& added, const Tensor& weight, double eps) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = schema<SumForward>("blt::add_rms_norm");
    auto [sum, out, inverse] = op.call(x, added, weight, eps);
    context->save_for_backward({sum, weight, inverse});
    context->mark_non_differentiable({inverse});
    context->set_materialize_grads(false);
    return {sum, out, inverse};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const Tensor &grad_sum = grads[0], &grad_out = grads[1];
    if (!grad_out.defined()) return {grad_sum, grad_sum, Tensor(), Tensor()};
    const auto saved = context->get_saved_variables();
    static const auto op = schema<Backward>("blt::rms_norm_backward");
    auto [grad, grad_weight] = op.call(grad_out, saved[0], saved[1], saved[2],
                                       grad_sum.defined() ? OptionalTensor(grad_sum) : std::nullopt);
    return {grad, grad, grad_weight, Tensor()};
  }
};

std::tuple<Tensor, Tensor> autograd(const Tensor& x, const Tensor& weight, double eps) {
  auto result = RmsNormFunction::apply(x, weight, eps);
  return {std::move(result[0]), std::move(result[1])};
}

std::tuple<Tensor, Tensor, Tensor> add_autograd(const Tensor& x, const Tensor& added, const Tensor& weight,
                                                double eps) {
  auto result = AddRmsNormFunction::apply(x, added, weight, eps);
  return {std::move(result[0]), std::move(result[1]), std::move(result[2])};
}

std::tuple<Tensor, Tensor> meta(const Tensor& x, const Tensor& weight, double) {
  check_rms_norm(x, weight);
  return {at::empty_like(x, at::MemoryFormat::Contiguous),
          x.new_empty({x.size(0)}, x.options().dtype(sum_type(x)))};
}

std::tuple<Tensor, Tensor, Tensor> add_meta(const Tensor& x, const Tensor& added, const Tensor& weight,
                                            double eps) {
  check_added(x, added);
  auto [out, inverse] = meta(x, weight, eps);
  return {at::empty_like(out), std::move(out), std::move(inverse)};
}

std::tuple<Tensor, Tensor> meta_backward(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                         const Tensor& inverse, const OptionalTensor& grad_stream) {
  check_rms_norm_backward(grad, x, weight, inverse, grad_stream);
  return {at::empty_like(x, at::MemoryFormat::Contiguous),
          at::empty_like(weight, at::MemoryFormat::Contiguous)};
}

TORCH_LIBRARY_IMPL(blt, Autograd, m) {
  m.impl("rms_norm", autograd);
  m.impl("add_rms_norm", add_autograd);
}

TORCH_LIBRARY_IMPL(blt, Meta, m) {
  m.impl("rms_norm", meta);
  m.impl("add_rms_norm", add_meta);
  m.impl("rms_norm_backward", meta_backward);
}

}  // namespace

void check_rms_norm(const Tensor& x, const Tensor& weight) {
  TORCH_CHECK(x.dim() == 2 && x.size(1) > 0, "rms_norm: x must be [N, C] with C > 0, got ", x.sizes());
  TORCH_CHECK(weight.dim() == 1 && weight.size(0) == x.size(1), "rms_norm: weight must be [", x.size(1),
              "], got ", weight.sizes());
  TORCH_CHECK(x.is_floating_point(), "rms_norm: x must be floating, got ", x.scalar_type());
  check_one_type("rms_norm", {"x", x}, {{"weight", weight}});
}

void check_added(const Tensor& x, const Tensor& added) {
  check_one_type("add_rms_norm", {"x", x}, {{"added", added}});
  TORCH_CHECK(added.sizes() == x.sizes(), "add_rms_norm: what is added must be like x ", x.sizes(), ", got ",
              added.sizes());
}

void check_rms_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& weight, const Tensor& inverse,
                             const OptionalTensor& grad_stream) {
  check_rms_norm(x, weight);
  check_one_type("rms_norm_backward", {"x", x},
                 {{"grad", grad}, {"grad_stream", grad_stream.value_or(Tensor())}});
  check_one_device("rms_norm_backward", {"x", x}, {{"inverse", inverse}});
  TORCH_CHECK(grad.sizes() == x.sizes() && (!grad_stream || grad_stream->sizes() == x.sizes()),
              "rms_norm_backward: grad and grad_stream must be like x ", x.sizes(), ", got ", grad.sizes(),
              " and ", grad_stream ? grad_stream->sizes() : at::IntArrayRef());
  TORCH_CHECK(inverse.dim() == 1 && inverse.size(0) == x.size(0) && inverse.scalar_type() == sum_type(x),
              "rms_norm_backward: inverse must be ", sum_type(x), " [", x.size(0), "], got ",
              inverse.scalar_type(), " ", inverse.sizes());
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  check_rms_norm(x, weight);
  static const auto op = schema<Forward>("blt::rms_norm");
  return std::get<0>(op.call(x, weight, eps));
}

NormedSum add_rms_norm(const Tensor& x, const Tensor& added, const Tensor& weight, double eps) {
  check_rms_norm(x, weight);
  check_added(x, added);
  static const auto op = schema<SumForward>("blt::add_rms_norm");
  auto [sum, normed, inverse] = op.call(x, added, weight, eps);
  return {std::move(sum), std::move(normed)};
}

}  // namespace blt::ops
