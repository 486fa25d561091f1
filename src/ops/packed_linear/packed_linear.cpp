// packed_linear: schema, door, shapes.
#include "blt/ops/packed_linear.h"

#include <ATen/core/grad_mode.h>
#include <torch/library.h>

#include "ops/door.h"
#include "ops/packed_linear/check.h"

namespace blt::ops {
namespace {

using at::Tensor;

TORCH_LIBRARY_FRAGMENT(blt, m) {
  m.def("pack_weight(Tensor weight) -> Tensor");
  m.def("packed_linear(Tensor x, Tensor panels, int out) -> Tensor");
}

Tensor meta_pack(const Tensor& weight) {
  check_weight(weight);
  const int64_t columns = panel_columns(weight.scalar_type());
  return weight.new_empty({(weight.size(0) + columns - 1) / columns, weight.size(1), columns},
                          panel_dtype(weight.scalar_type()));
}

Tensor meta(const Tensor& x, const Tensor& panels, int64_t out) {
  check_product(x, panels);
  check_panels(x, panels, out);
  return x.new_empty({x.size(0), out});
}

TORCH_LIBRARY_IMPL(blt, Meta, m) {
  m.impl("pack_weight", meta_pack);
  m.impl("packed_linear", meta);
}

}  // namespace

void check_weight(const Tensor& weight) {
  TORCH_CHECK(weight.dim() == 2 && weight.is_floating_point(),
              "pack_weight: weight must be [out, in] floating, got ", weight.scalar_type(), " ",
              weight.sizes());
}

void check_product(const Tensor& x, const Tensor& panels) {
  TORCH_CHECK(x.dim() == 2 && x.is_floating_point(), "packed_linear: x must be [N, in] floating, got ",
              x.scalar_type(), " ", x.sizes());
  check_one_device("packed_linear", {"x", x}, {{"panels", panels}});
}

void check_panels(const Tensor& x, const Tensor& panels, int64_t out) {
  TORCH_CHECK(panels.scalar_type() == panel_dtype(x.scalar_type()), "packed_linear: a weight of ",
              x.scalar_type(), " has panels of ", panel_dtype(x.scalar_type()), ", got ",
              panels.scalar_type());
  const int64_t columns = panel_columns(x.scalar_type());
  TORCH_CHECK(out >= 0 && panels.dim() == 3 && panels.size(0) == (out + columns - 1) / columns &&
                  panels.size(1) == x.size(1) && panels.size(2) == columns,
              "packed_linear: panels ", panels.sizes(), " are not those of a weight [", out, ", ", x.size(1),
              "]");
}

PackedWeight pack_weight(const Tensor& weight) {
  check_weight(weight);
  static const auto op = schema<Tensor(const Tensor&)>("blt::pack_weight");
  return {op.call(weight.detach()), weight.scalar_type(), weight.size(1), weight.size(0)};
}

std::optional<PackedWeight> packed_where_used(const Tensor& weight) {
  if (!weight.is_cpu()) return std::nullopt;
  return pack_weight(weight);
}

Tensor packed_linear(const Tensor& x, const PackedWeight& weight) {
  TORCH_CHECK(weight.panels.defined(), "packed_linear: the weight is not packed");
  TORCH_CHECK(x.dim() == 2 && x.size(1) == weight.in, "packed_linear: x must be [N, ", weight.in, "], got ",
              x.sizes());
  TORCH_CHECK(x.scalar_type() == weight.dtype, "packed_linear: x is ", x.scalar_type(), ", the weight ",
              weight.dtype);
  check_one_device("packed_linear", {"x", x}, {{"the weight", weight.panels}});
  TORCH_CHECK(!(at::GradMode::is_enabled() && x.requires_grad()),
              "packed_linear: x requires a gradient, but packed_linear is for inference: use linear, or "
              "a NoGradGuard");
  static const auto op = schema<Tensor(const Tensor&, const Tensor&, int64_t)>("blt::packed_linear");
  return op.call(x, weight.panels, weight.out);
}

}  // namespace blt::ops
