// rms_norm_linears: its derivative, made of the operators rms_norm, add_rms_norm and linear. It has no kernel of its own.
#include "blt/ops/rms_norm_linears.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "blt/ops/linear.h"
#include "blt/ops/rms_norm.h"
#include "ops/door.h"
#include "ops/linear/product.h"

namespace blt::ops {
namespace {

using at::Tensor;

using RmsNorm = std::tuple<Tensor, Tensor>(const Tensor& x, const Tensor& weight, double eps);
using RmsNormBackward = std::tuple<Tensor, Tensor>(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                                   const Tensor& inverse,
                                                   const std::optional<Tensor>& grad_stream);

// Results: the products, then the stream.
struct RmsNormLinearsFunction : torch::autograd::Function<RmsNormLinearsFunction> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const Tensor& x,
                                                const Tensor& gain, at::TensorList weights, double eps,
                                                const std::optional<Tensor>& added) {
    const at::AutoDispatchBelowADInplaceOrView below;
    auto [stream, normed] =
        added ? ops::add_rms_norm(x, *added, gain, eps) : NormedSum{x, ops::rms_norm(x, gain, eps)};
    torch::autograd::variable_list saved = {stream, gain}, results;
    saved.insert(saved.end(), weights.begin(), weights.end());
    context->save_for_backward(std::move(saved));
    context->saved_data["eps"] = eps;
    context->saved_data["adds"] = added.has_value();
    context->set_materialize_grads(false);
    for (const Tensor& weight : weights) results.push_back(ops::linear(normed, weight));
    results.push_back(stream);
    return results;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static const auto rms_norm = schema<RmsNorm>("blt::rms_norm");
    static const auto rms_norm_backward = schema<RmsNormBackward>("blt::rms_norm_backward");
    const auto saved = context->get_saved_variables();
    const Tensor &stream = saved[0], &gain = saved[1], &grad_stream = grads.back();
    const Tensor* weights = &saved[kWeights];
    const size_t products = grads.size() - 1, added = kWeights + products + 1;  // between them: eps
    const bool adds = context->saved_data["adds"].toBool();
    torch::autograd::variable_list result(added + 1);
    const bool wants_stream =
        context->needs_input_grad(kX) || (adds && context->needs_input_grad(kWeights + products));
    const auto to_stream = [&](const Tensor& grad) {
      result[kX] = grad;
      if (adds) result[added] = grad;
    };
    if (std::none_of(grads.begin(), grads.end() - 1, [](const Tensor& grad) { return grad.defined(); })) {
      to_stream(grad_stream);
      return result;
    }
    auto [normed, inverse] = rms_norm.call(stream, gain, context->saved_data["eps"].toDouble());
    for (size_t i = 0; i < products; ++i)
      if (grads[i].defined() && context->needs_input_grad(kWeights + i))
        result[kWeights + i] = product(grads[i].t(), normed);
    normed.reset();
    if (!wants_stream && !context->needs_input_grad(kGain)) return result;
    Tensor grad_normed;
    for (size_t i = products; i-- > 0;) {
      if (!grads[i].defined()) continue;
      const Tensor part = product(grads[i], weights[i]);
      grad_normed = grad_normed.defined() ? grad_normed.add_(part) : part;
    }
    auto [grad, grad_gain] =
        rms_norm_backward.call(grad_normed, stream, gain, inverse,
                               grad_stream.defined() ? std::optional(grad_stream) : std::nullopt);
    if (wants_stream) to_stream(grad);
    if (context->needs_input_grad(kGain)) result[kGain] = std::move(grad_gain);
    return result;
  }

  static constexpr size_t kX = 0, kGain = 1, kWeights = 2;  // places among what forward takes
};

}  // namespace

std::vector<Tensor> rms_norm_linears(const Tensor& x, const Tensor& gain, double eps,
                                     at::TensorList weights) {
  return stream_norm_linears(x, {}, gain, eps, weights).results;
}

StreamLinears stream_norm_linears(const Tensor& x, const Tensor& added, const Tensor& gain, double eps,
                                  at::TensorList weights) {
  TORCH_CHECK(!weights.empty(), "rms_norm_linears: needs a weight");
  StreamLinears result;
  result.results = RmsNormLinearsFunction::apply(x, gain, weights, eps,
                                                 added.defined() ? std::optional(added) : std::nullopt);
  result.stream = std::move(result.results.back());
  result.results.pop_back();
  return result;
}

}  // namespace blt::ops
