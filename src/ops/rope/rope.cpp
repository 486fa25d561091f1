// rope: schema, door, derivative, shapes.
#include "blt/ops/rope.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/door.h"
#include "ops/rope/check.h"

namespace blt::ops {
namespace {

using at::Tensor;

// A rotation's derivative is the rotation back: `inverse` turns by the negative angle, and is the backward.
TORCH_LIBRARY_FRAGMENT(blt, m) {
  m.def("rope(Tensor x, Tensor positions, Tensor cos, Tensor sin, bool inverse) -> Tensor");
  // Below autograd alone: its derivative is with ops::rope_in_place, which gives the changed memory another name.
  m.def("rope_(Tensor(a!) x, Tensor positions, Tensor cos, Tensor sin, bool inverse) -> ()");
}

using Rotate = Tensor(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin,
                      bool inverse);
using RotateInPlace = void(Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin,
                           bool inverse);

struct RopeFunction : torch::autograd::Function<RopeFunction> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x, const Tensor& positions,
                        const Tensor& cos, const Tensor& sin, bool inverse, bool in_place) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = schema<Rotate>("blt::rope");
    static const auto op_in_place = schema<RotateInPlace>("blt::rope_");
    context->save_for_backward({positions, cos, sin});
    context->saved_data["inverse"] = inverse;
    if (!in_place) return op.call(x, positions, cos, sin, inverse);
    Tensor same = x.detach();  // a tensor of its own, in the same memory
    op_in_place.call(same, positions, cos, sin, inverse);
    return same;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    static const auto op = schema<Rotate>("blt::rope");
    return {op.call(grads[0], saved[0], saved[1], saved[2], !context->saved_data["inverse"].toBool()),
            Tensor(),
            Tensor(),
            Tensor(),
            Tensor(),
            Tensor()};
  }
};

Tensor autograd(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin,
                bool inverse) {
  return RopeFunction::apply(x, positions, cos, sin, inverse, /*in_place=*/false);
}

void autograd_in_place(Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin,
                       bool inverse) {
  TORCH_CHECK(!at::GradMode::is_enabled() || !x.requires_grad(),
              "rope_: has no derivative of its own; use ops::rope_in_place");
  const at::AutoDispatchBelowADInplaceOrView below;
  static const auto op = schema<RotateInPlace>("blt::rope_");
  op.call(x, positions, cos, sin, inverse);
}

Tensor meta(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin, bool) {
  check_rope(x, positions, cos, sin);
  return at::empty_like(x, at::MemoryFormat::Contiguous);
}

void meta_in_place(Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin, bool) {
  check_rope(x, positions, cos, sin);
}

TORCH_LIBRARY_IMPL(blt, Autograd, m) {
  m.impl("rope", autograd);
  m.impl("rope_", autograd_in_place);
}
TORCH_LIBRARY_IMPL(blt, Meta, m) {
  m.impl("rope", meta);
  m.impl("rope_", meta_in_place);
}

}  // namespace

void check_rope(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin) {
  TORCH_CHECK(x.dim() == 3, "rope: x must be [T, H, E], got ", x.sizes());
  TORCH_CHECK(x.size(2) % 2 == 0, "rope: the head width must be even, got ", x.size(2));
  TORCH_CHECK(x.is_floating_point(), "rope: x must be floating, got ", x.scalar_type());
  TORCH_CHECK(positions.dim() == 1 && positions.size(0) == x.size(0) && positions.scalar_type() == at::kInt,
              "rope: positions must be [", x.size(0), "] int32, got ", positions.scalar_type(), " ",
              positions.sizes());
  const auto table_type = sum_type(x);
  for (const Tensor* table : {&cos, &sin})
    TORCH_CHECK(table->dim() == 2 && table->size(1) == x.size(2) / 2 && table->sizes() == cos.sizes() &&
                    table->scalar_type() == table_type,
                "rope: cos and sin must be [M, ", x.size(2) / 2, "] ", table_type, ", got ",
                table->scalar_type(), " ", table->sizes());
  check_one_device("rope", {"x", x}, {{"positions", positions}, {"cos", cos}, {"sin", sin}});
}

Tensor rope(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin) {
  check_rope(x, positions, cos, sin);
  static const auto op = schema<Rotate>("blt::rope");
  return op.call(x, positions, cos, sin, /*inverse=*/false);
}

Tensor rope_in_place(Tensor x, const Tensor& positions, const Tensor& cos, const Tensor& sin) {
  check_rope(x, positions, cos, sin);
  TORCH_CHECK(!x.requires_grad() || !x.is_leaf() || !at::GradMode::is_enabled(),
              "rope_in_place: x is a leaf that requires a gradient");
  return RopeFunction::apply(x, positions, cos, sin, /*inverse=*/false, /*in_place=*/true);
}

}  // namespace blt::ops
