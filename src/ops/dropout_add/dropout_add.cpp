// dropout_add: schema, door, derivative, shapes.
#include "blt/ops/dropout_add.h"

#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/door.h"
#include "ops/dropout_add/check.h"

namespace blt::ops {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

TORCH_LIBRARY_FRAGMENT(blt, m) {
  m.def("dropout_add(Tensor x, Tensor? residual, float probability, int seed) -> Tensor");
}

using Forward = Tensor(const Tensor& x, const OptionalTensor& residual, double probability, int64_t seed);

Tensor call(const Tensor& x, const OptionalTensor& residual, double probability, int64_t seed) {
  static const auto op = schema<Forward>("blt::dropout_add");
  return op.call(x, residual, probability, seed);
}

struct DropoutAddFunction : torch::autograd::Function<DropoutAddFunction> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x,
                        const OptionalTensor& residual, double probability, int64_t seed) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->saved_data["probability"] = probability;
    context->saved_data["seed"] = seed;
    context->saved_data["has_residual"] = residual.has_value();
    return call(x, residual, probability, seed);
  }

  // What was left out of x is left out of its gradient, and the rest has the same scale.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const Tensor& grad = grads[0];
    const auto& data = context->saved_data;
    Tensor grad_x;
    if (context->needs_input_grad(0))
      grad_x = call(grad, std::nullopt, data.at("probability").toDouble(), data.at("seed").toInt());
    return {grad_x, data.at("has_residual").toBool() ? grad : Tensor(), {}, {}};
  }
};

Tensor autograd(const Tensor& x, const OptionalTensor& residual, double probability, int64_t seed) {
  return DropoutAddFunction::apply(x, residual, probability, seed);
}

Tensor meta(const Tensor& x, const OptionalTensor& residual, double probability, int64_t) {
  check_dropout_add(x, residual, probability);
  return at::empty_like(x, at::MemoryFormat::Contiguous);
}

TORCH_LIBRARY_IMPL(blt, Autograd, m) { m.impl("dropout_add", autograd); }

TORCH_LIBRARY_IMPL(blt, Meta, m) { m.impl("dropout_add", meta); }

}  // namespace

uint64_t dropout_threshold(double probability) { return static_cast<uint64_t>(probability * 0x1p32); }

void check_dropout_add(const Tensor& x, const OptionalTensor& residual, double probability) {
  TORCH_CHECK(x.is_floating_point(), "dropout_add: x must be floating, got ", x.scalar_type());
  TORCH_CHECK(probability >= 0 && probability <= 1, "dropout_add: the probability lies between 0 and 1, got ",
              probability);
  if (!residual) return;
  TORCH_CHECK(residual->sizes() == x.sizes(), "dropout_add: residual must be like x ", x.sizes(), ", got ",
              residual->sizes());
  check_one_type("dropout_add", {"x", x}, {{"residual", *residual}});
}

Tensor dropout_add(const Tensor& x, double probability, int64_t seed, const Tensor& residual) {
  const OptionalTensor given = residual.defined() ? OptionalTensor(residual) : std::nullopt;
  check_dropout_add(x, given, probability);
  return call(x, given, probability, seed);
}

}  // namespace blt::ops
