#include "model/computed_again.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <mutex>
#include <utility>
#include <vector>

namespace blt {
namespace {

using torch::autograd::variable_list;

at::Tensor random_state() {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  const std::lock_guard lock(generator.mutex());
  return generator.get_state();
}

void set_random_state(const at::Tensor& state) {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  const std::lock_guard lock(generator.mutex());
  generator.set_state(state);
}

// What a backward pass needs besides tensors.
struct Again : torch::CustomClassHolder {
  std::function<at::Tensor(const at::Tensor&)> compute;
  at::Tensor random;  // of the generator, before the first time
};

// x, then the parameters: they are inputs, so that their gradients leave here as those of any operator do.
struct ComputedAgain : torch::autograd::Function<ComputedAgain> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            at::TensorList parameters, const c10::intrusive_ptr<Again>& again) {
    variable_list saved = {x};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    context->save_for_backward(std::move(saved));
    context->saved_data["again"] = c10::IValue::make_capsule(again);
    return again->compute(x);  // records nothing: a function's forward runs without gradients
  }

  static variable_list backward(torch::autograd::AutogradContext* context, const variable_list& grads) {
    const auto again = c10::static_intrusive_pointer_cast<Again>(context->saved_data["again"].toCapsule());
    variable_list inputs = context->get_saved_variables();
    const at::Tensor now = random_state();
    variable_list gradients(inputs.size());
    variable_list wanted;
    {
      const at::AutoGradMode records(true);
      inputs[0] = inputs[0].detach().requires_grad_(context->needs_input_grad(0));
      set_random_state(again->random);
      const at::Tensor y = again->compute(inputs[0]);
      set_random_state(now);
      for (const at::Tensor& input : inputs)
        if (input.requires_grad()) wanted.push_back(input);
      wanted = torch::autograd::grad({y}, wanted, {grads[0]}, /*retain_graph=*/false, /*create_graph=*/false,
                                     /*allow_unused=*/true);
    }
    size_t next = 0;
    for (size_t i = 0; i < inputs.size(); ++i)
      if (inputs[i].requires_grad()) gradients[i] = wanted[next++];
    gradients.emplace_back();  // of `again`
    return gradients;
  }
};

}  // namespace

at::Tensor computed_again(torch::nn::Module& module, const at::Tensor& x,
                          std::function<at::Tensor(const at::Tensor&)> compute) {
  auto again = c10::make_intrusive<Again>();
  again->compute = std::move(compute);
  again->random = random_state();
  return ComputedAgain::apply(x, at::TensorList(module.parameters()), again);
}

}  // namespace blt
