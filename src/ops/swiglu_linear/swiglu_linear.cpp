// swiglu_linear: its derivative, made of the operators swiglu and linear. It has no kernel of its own.
#include "blt/ops/swiglu_linear.h"

#include <torch/csrc/autograd/custom_function.h>

#include "blt/ops/linear.h"
#include "blt/ops/swiglu.h"
#include "ops/door.h"
#include "ops/linear/product.h"

namespace blt::ops {
namespace {

using at::Tensor;

using SwigluBackward = std::tuple<Tensor, Tensor>(const Tensor& grad, const Tensor& gate, const Tensor& up);

struct SwigluLinearFunction : torch::autograd::Function<SwigluLinearFunction> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& gate, const Tensor& up,
                        const Tensor& weight) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({gate, up, weight});
    return ops::linear(ops::swiglu(gate, up), weight);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const Tensor &grad = grads[0], &gate = saved[0], &up = saved[1], &weight = saved[2];
    static const auto swiglu_backward = schema<SwigluBackward>("blt::swiglu_backward");
    Tensor grad_gate, grad_up, grad_weight;
    if (context->needs_input_grad(2)) grad_weight = product(grad.t(), ops::swiglu(gate, up));
    if (context->needs_input_grad(0) || context->needs_input_grad(1))
      std::tie(grad_gate, grad_up) = swiglu_backward.call(product(grad, weight), gate, up);
    return {grad_gate, grad_up, grad_weight};
  }
};

}  // namespace

Tensor swiglu_linear(const Tensor& gate, const Tensor& up, const Tensor& weight) {
  return SwigluLinearFunction::apply(gate, up, weight);
}

}  // namespace blt::ops
