// linear: schema, door, derivative, shapes.
#include "blt/ops/linear.h"

#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/door.h"
#include "ops/linear/product.h"

namespace blt::ops {
namespace {

using at::Tensor;

TORCH_LIBRARY_FRAGMENT(blt, m) {
  m.def("linear(Tensor x, Tensor weight) -> Tensor");
  m.def("product(Tensor a, Tensor b) -> Tensor");
}

using Forward = Tensor(const Tensor& x, const Tensor& weight);
using Product = Tensor(const Tensor& a, const Tensor& b);

void check_linear(const Tensor& x, const Tensor& weight) {
  TORCH_CHECK(x.dim() == 2, "linear: x must be [N, in], got ", x.sizes());
  TORCH_CHECK(x.is_floating_point(), "linear: x must be floating, got ", x.scalar_type());
  TORCH_CHECK(weight.dim() == 2 && weight.size(1) == x.size(1), "linear: weight must be [out, ", x.size(1),
              "], got ", weight.sizes());
  check_one_type("linear", {"x", x}, {{"weight", weight}});
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x, const Tensor& weight) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, weight});
    return product(x, weight.t());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const Tensor &grad = grads[0], &x = saved[0], &weight = saved[1];
    return {context->needs_input_grad(0) ? product(grad, weight) : Tensor(),
            context->needs_input_grad(1) ? product(grad.t(), x) : Tensor()};
  }
};

Tensor autograd(const Tensor& x, const Tensor& weight) { return LinearFunction::apply(x, weight); }

Tensor forward(const Tensor& x, const Tensor& weight) {
  check_linear(x, weight);
  return product(x, weight.t());
}

Tensor any_product(const Tensor& a, const Tensor& b) {
  check_factors(a, b);
  return at::mm(a, b);
}

TORCH_LIBRARY_IMPL(blt, Autograd, m) { m.impl("linear", autograd); }

TORCH_LIBRARY_IMPL(blt, CompositeExplicitAutograd, m) {
  m.impl("linear", forward);
  m.impl("product", any_product);  // but on the CPU: cpu.cpp
}

}  // namespace

void check_factors(const Tensor& a, const Tensor& b) {
  TORCH_CHECK(a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0) && a.is_floating_point(),
              "product: a must be [rows, depth] floating and b [depth, columns], got ", a.scalar_type(), " ",
              a.sizes(), " and ", b.sizes());
  check_one_type("product", {"a", a}, {{"b", b}});
}

Tensor product(const Tensor& a, const Tensor& b) {
  static const auto op = schema<Product>("blt::product");
  return op.call(a, b);
}

Tensor linear(const Tensor& x, const Tensor& weight) {
  check_linear(x, weight);
  static const auto op = schema<Forward>("blt::linear");
  return op.call(x, weight);
}

}  // namespace blt::ops
