// cross_entropy: schema, door, derivative, shapes.
#include "blt/ops/cross_entropy.h"

#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/cross_entropy/check.h"
#include "ops/door.h"

namespace blt::ops {
namespace {

using at::Tensor;

TORCH_LIBRARY_FRAGMENT(blt, m) {
  // softmax [T, 2]: what gives a row's probabilities back, the largest logit and 1 / sum exp(logit - largest).
  m.def(
      "cross_entropy(Tensor logits, Tensor targets) -> (Tensor nll, Tensor entropy, Tensor argmax, Tensor "
      "softmax)");
  m.def("cross_entropy_backward(Tensor grad, Tensor logits, Tensor targets, Tensor softmax) -> Tensor");
}

using Results = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Forward = Results(const Tensor& logits, const Tensor& targets);
using Backward = Tensor(const Tensor& grad, const Tensor& logits, const Tensor& targets,
                        const Tensor& softmax);

struct CrossEntropyFunction : torch::autograd::Function<CrossEntropyFunction> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const Tensor& logits, const Tensor& targets) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = schema<Forward>("blt::cross_entropy");
    auto [nll, entropy, argmax, softmax] = op.call(logits, targets);
    context->save_for_backward({logits, targets, softmax});
    context->mark_non_differentiable({entropy, argmax, softmax});
    return {nll, entropy, argmax, softmax};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    static const auto op = schema<Backward>("blt::cross_entropy_backward");
    return {op.call(grads[0], saved[0], saved[1], saved[2]), Tensor()};
  }
};

Results autograd(const Tensor& logits, const Tensor& targets) {
  auto result = CrossEntropyFunction::apply(logits, targets);
  return {std::move(result[0]), std::move(result[1]), std::move(result[2]), std::move(result[3])};
}

Results meta(const Tensor& logits, const Tensor& targets) {
  check_cross_entropy(logits, targets);
  const auto options = logits.options().dtype(sum_type(logits));
  const int64_t rows = logits.size(0);
  return {logits.new_empty({rows}, options), logits.new_empty({rows}, options),
          at::empty_like(targets, at::MemoryFormat::Contiguous), logits.new_empty({rows, 2}, options)};
}

Tensor meta_backward(const Tensor& grad, const Tensor& logits, const Tensor& targets, const Tensor& softmax) {
  check_cross_entropy_backward(grad, logits, targets, softmax);
  return at::empty_like(logits, at::MemoryFormat::Contiguous);
}

TORCH_LIBRARY_IMPL(blt, Autograd, m) { m.impl("cross_entropy", autograd); }

TORCH_LIBRARY_IMPL(blt, Meta, m) {
  m.impl("cross_entropy", meta);
  m.impl("cross_entropy_backward", meta_backward);
}

}  // namespace

void check_cross_entropy(const Tensor& logits, const Tensor& targets) {
  TORCH_CHECK(logits.dim() == 2 && logits.size(1) > 0,
              "cross_entropy: logits must be [T, V] with V > 0, got ", logits.sizes());
  TORCH_CHECK(logits.is_floating_point(), "cross_entropy: logits must be floating, got ",
              logits.scalar_type());
  TORCH_CHECK(targets.dim() == 1 && targets.size(0) == logits.size(0) && targets.scalar_type() == at::kInt,
              "cross_entropy: targets must be [", logits.size(0), "] int32, got ", targets.scalar_type(), " ",
              targets.sizes());
  check_one_device("cross_entropy", {"logits", logits}, {{"targets", targets}});
}

void check_cross_entropy_backward(const Tensor& grad, const Tensor& logits, const Tensor& targets,
                                  const Tensor& softmax) {
  check_cross_entropy(logits, targets);
  check_one_device("cross_entropy_backward", {"logits", logits}, {{"grad", grad}, {"softmax", softmax}});
  const int64_t rows = logits.size(0);
  const auto type = sum_type(logits);
  TORCH_CHECK(grad.dim() == 1 && grad.size(0) == rows && grad.scalar_type() == type,
              "cross_entropy_backward: grad must be ", type, " [", rows, "], got ", grad.scalar_type(), " ",
              grad.sizes());
  TORCH_CHECK(
      softmax.dim() == 2 && softmax.size(0) == rows && softmax.size(1) == 2 && softmax.scalar_type() == type,
      "cross_entropy_backward: softmax must be ", type, " [", rows, ", 2], got ", softmax.scalar_type(), " ",
      softmax.sizes());
}

CrossEntropy cross_entropy(const Tensor& logits, const Tensor& targets) {
  check_cross_entropy(logits, targets);
  static const auto op = schema<Forward>("blt::cross_entropy");
  auto [nll, entropy, argmax, softmax] = op.call(logits, targets);
  return {nll, entropy, argmax};
}

}  // namespace blt::ops
