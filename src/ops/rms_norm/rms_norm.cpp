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
      "rms_norm_backward(Tensor grad, Tensor x, Tensor weight, Tensor inverse) -> (Tensor grad_x, Tensor "
      "grad_weight)");
}

using Forward = std::tuple<Tensor, Tensor>(const Tensor& x, const Tensor& weight, double eps);
using Backward = std::tuple<Tensor, Tensor>(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                            const Tensor& inverse);

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
    auto [grad_x, grad_weight] = op.call(grads[0], saved[0], saved[1], saved[2]);
    return {grad_x, grad_weight, Tensor()};
  }
};

std::tuple<Tensor, Tensor> autograd(const Tensor& x, const Tensor& weight, double eps) {
  auto result = RmsNormFunction::apply(x, weight, eps);
  return {std::move(result[0]), std::move(result[1])};
}

std::tuple<Tensor, Tensor> meta(const Tensor& x, const Tensor& weight, double) {
  check_rms_norm(x, weight);
  const auto inverse_type = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return {at::empty_like(x, at::MemoryFormat::Contiguous),
          x.new_empty({x.size(0)}, x.options().dtype(inverse_type))};
}

std::tuple<Tensor, Tensor> meta_backward(const Tensor&, const Tensor& x, const Tensor& weight,
                                         const Tensor&) {
  return {at::empty_like(x, at::MemoryFormat::Contiguous),
          at::empty_like(weight, at::MemoryFormat::Contiguous)};
}

TORCH_LIBRARY_IMPL(blt, Autograd, m) { m.impl("rms_norm", autograd); }

TORCH_LIBRARY_IMPL(blt, Meta, m) {
  m.impl("rms_norm", meta);
  m.impl("rms_norm_backward", meta_backward);
}

}  // namespace

void check_rms_norm(const Tensor& x, const Tensor& weight) {
  TORCH_CHECK(x.dim() == 2 && x.size(1) > 0, "rms_norm: x must be [N, C] with C > 0, got ", x.sizes());
  TORCH_CHECK(weight.dim() == 1 && weight.size(0) == x.size(1), "rms_norm: weight must be [", x.size(1),
              "], got ", weight.sizes());
  TORCH_CHECK(x.is_floating_point(), "rms_norm: x must be floating, got ", x.scalar_type());
  TORCH_CHECK(weight.scalar_type() == x.scalar_type() && weight.device() == x.device(), "rms_norm: x is ",
              x.scalar_type(), " on ", x.device(), ", but weight is ", weight.scalar_type(), " on ",
              weight.device());
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  check_rms_norm(x, weight);
  static const auto op = schema<Forward>("blt::rms_norm");
  return std::get<0>(op.call(x, weight, eps));
}

}  // namespace blt::ops
