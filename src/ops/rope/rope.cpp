// rope: schema, door, derivative, shapes.
#include "blt/ops/rope.h"

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
}

using Rotate = Tensor(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin,
                      bool inverse);

struct RopeFunction : torch::autograd::Function<RopeFunction> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x, const Tensor& positions,
                        const Tensor& cos, const Tensor& sin, bool inverse) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = schema<Rotate>("blt::rope");
    context->save_for_backward({positions, cos, sin});
    context->saved_data["inverse"] = inverse;
    return op.call(x, positions, cos, sin, inverse);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    static const auto op = schema<Rotate>("blt::rope");
    return {op.call(grads[0], saved[0], saved[1], saved[2], !context->saved_data["inverse"].toBool()),
            Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

Tensor autograd(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin,
                bool inverse) {
  return RopeFunction::apply(x, positions, cos, sin, inverse);
}

Tensor meta(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin, bool) {
  check_rope(x, positions, cos, sin);
  return at::empty_like(x, at::MemoryFormat::Contiguous);
}

TORCH_LIBRARY_IMPL(blt, Autograd, m) { m.impl("rope", autograd); }
TORCH_LIBRARY_IMPL(blt, Meta, m) { m.impl("rope", meta); }

}  // namespace

void check_rope(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin) {
  TORCH_CHECK(x.dim() == 3, "rope: x must be [T, H, E], got ", x.sizes());
  TORCH_CHECK(x.size(2) % 2 == 0, "rope: the head width must be even, got ", x.size(2));
  TORCH_CHECK(x.is_floating_point(), "rope: x must be floating, got ", x.scalar_type());
  TORCH_CHECK(positions.dim() == 1 && positions.size(0) == x.size(0) && positions.scalar_type() == at::kInt,
              "rope: positions must be [", x.size(0), "] int32, got ", positions.scalar_type(), " ",
              positions.sizes());
  const auto table_type = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  for (const Tensor* table : {&cos, &sin})
    TORCH_CHECK(table->dim() == 2 && table->size(1) == x.size(2) / 2 && table->sizes() == cos.sizes() &&
                    table->scalar_type() == table_type,
                "rope: cos and sin must be [M, ", x.size(2) / 2, "] ", table_type, ", got ",
                table->scalar_type(), " ", table->sizes());
  for (const Tensor* other : {&positions, &cos, &sin})
    TORCH_CHECK(other->device() == x.device(), "rope: x is on ", x.device(), ", but positions or a table on ",
                other->device());
}

Tensor rope(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin) {
  check_rope(x, positions, cos, sin);
  static const auto op = schema<Rotate>("blt::rope");
  return op.call(x, positions, cos, sin, /*inverse=*/false);
}

}  // namespace blt::ops
