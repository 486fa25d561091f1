// rms_norm_linears: its derivative, made of the operators rms_norm and linear. It has no kernel of its own.
#include "blt/ops/rms_norm_linears.h"

#include <torch/csrc/autograd/custom_function.h>

#include "blt/ops/linear.h"
#include "blt/ops/rms_norm.h"
#include "ops/door.h"
#include "ops/linear/product.h"

namespace blt::ops {
namespace {

using at::Tensor;

using RmsNorm = std::tuple<Tensor, Tensor>(const Tensor& x, const Tensor& weight, double eps);
using RmsNormBackward = std::tuple<Tensor, Tensor>(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                                   const Tensor& inverse);

struct RmsNormLinearsFunction : torch::autograd::Function<RmsNormLinearsFunction> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const Tensor& x,
                                                const Tensor& gain, at::TensorList weights, double eps) {
    const at::AutoDispatchBelowADInplaceOrView below;
    torch::autograd::variable_list saved = {x, gain}, results;
    saved.insert(saved.end(), weights.begin(), weights.end());
    context->save_for_backward(std::move(saved));
    context->saved_data["eps"] = eps;
    context->set_materialize_grads(false);
    const Tensor normed = ops::rms_norm(x, gain, eps);
    for (const Tensor& weight : weights) results.push_back(ops::linear(normed, weight));
    return results;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static const auto rms_norm = schema<RmsNorm>("blt::rms_norm");
    static const auto rms_norm_backward = schema<RmsNormBackward>("blt::rms_norm_backward");
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &gain = saved[1];
    const Tensor* weights = &saved[kWeights];
    torch::autograd::variable_list result(kWeights + grads.size() + 1);  // the last is eps
    auto [normed, inverse] = rms_norm.call(x, gain, context->saved_data["eps"].toDouble());
    for (size_t i = 0; i < grads.size(); ++i)
      if (grads[i].defined() && context->needs_input_grad(kWeights + i))
        result[kWeights + i] = product(grads[i].t(), normed);
    normed.reset();
    if (!context->needs_input_grad(kX) && !context->needs_input_grad(kGain)) return result;
    Tensor grad_normed;
    for (size_t i = grads.size(); i-- > 0;) {
      if (!grads[i].defined()) continue;
      const Tensor part = product(grads[i], weights[i]);
      grad_normed = grad_normed.defined() ? grad_normed.add_(part) : part;
    }
    auto [grad_x, grad_gain] = rms_norm_backward.call(grad_normed, x, gain, inverse);
    if (context->needs_input_grad(kX)) result[kX] = std::move(grad_x);
    if (context->needs_input_grad(kGain)) result[kGain] = std::move(grad_gain);
    return result;
  }

  static constexpr size_t kX = 0, kGain = 1, kWeights = 2;  // places among the tensors that forward takes
};

}  // namespace

std::vector<Tensor> rms_norm_linears(const Tensor& x, const Tensor& gain, double eps,
                                     at::TensorList weights) {
  TORCH_CHECK(!weights.empty(), "rms_norm_linears: needs a weight");
  return RmsNormLinearsFunction::apply(x, gain, weights, eps);
}

}  // namespace blt::ops
