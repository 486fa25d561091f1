// swiglu: schema, door, derivative, shapes.
#include "blt/ops/swiglu.h"

#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/door.h"
#include "ops/swiglu/check.h"

namespace blt::ops {
namespace {

using at::Tensor;

TORCH_LIBRARY_FRAGMENT(blt, m) {
  m.def("swiglu(Tensor gate, Tensor up) -> Tensor");
  m.def("swiglu_backward(Tensor grad, Tensor gate, Tensor up) -> (Tensor grad_gate, Tensor grad_up)");
}

using Forward = Tensor(const Tensor& gate, const Tensor& up);
using Backward = std::tuple<Tensor, Tensor>(const Tensor& grad, const Tensor& gate, const Tensor& up);

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& gate, const Tensor& up) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = schema<Forward>("blt::swiglu");
    context->save_for_backward({gate, up});
    return op.call(gate, up);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    static const auto op = schema<Backward>("blt::swiglu_backward");
    auto [grad_gate, grad_up] = op.call(grads[0], saved[0], saved[1]);
    return {grad_gate, grad_up};
  }
};

Tensor autograd(const Tensor& gate, const Tensor& up) { return SwigluFunction::apply(gate, up); }

Tensor meta(const Tensor& gate, const Tensor& up) {
  check_swiglu(gate, up);
  return at::empty_like(gate, at::MemoryFormat::Contiguous);
}

std::tuple<Tensor, Tensor> meta_backward(const Tensor& grad, const Tensor& gate, const Tensor& up) {
  check_swiglu_backward(grad, gate, up);
  return {at::empty_like(gate, at::MemoryFormat::Contiguous),
          at::empty_like(up, at::MemoryFormat::Contiguous)};
}

TORCH_LIBRARY_IMPL(blt, Autograd, m) { m.impl("swiglu", autograd); }

TORCH_LIBRARY_IMPL(blt, Meta, m) {
  m.impl("swiglu", meta);
  m.impl("swiglu_backward", meta_backward);
}

}  // namespace

void check_swiglu(const Tensor& gate, const Tensor& up) {
  TORCH_CHECK(gate.dim() == 2, "swiglu: gate must be [N, F], got ", gate.sizes());
  TORCH_CHECK(up.sizes() == gate.sizes(), "swiglu: up must be like gate ", gate.sizes(), ", got ",
              up.sizes());
  TORCH_CHECK(gate.is_floating_point(), "swiglu: gate must be floating, got ", gate.scalar_type());
  check_one_type("swiglu", {"gate", gate}, {{"up", up}});
}

void check_swiglu_backward(const Tensor& grad, const Tensor& gate, const Tensor& up) {
  check_swiglu(gate, up);
  check_one_type("swiglu_backward", {"gate", gate}, {{"grad", grad}});
  TORCH_CHECK(grad.sizes() == gate.sizes(), "swiglu_backward: grad must be like gate ", gate.sizes(),
              ", got ", grad.sizes());
}

Tensor swiglu(const Tensor& gate, const Tensor& up) {
  check_swiglu(gate, up);
  static const auto op = schema<Forward>("blt::swiglu");
  return op.call(gate, up);
}

}  // namespace blt::ops
