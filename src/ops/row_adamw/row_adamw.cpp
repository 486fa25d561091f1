// row_adamw_: schema, door, and its meta version, which does nothing.
#include "blt/ops/row_adamw.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <optional>

#include "ops/door.h"
#include "ops/row_adamw/check.h"

namespace blt::ops {
namespace {

using at::Tensor;

TORCH_LIBRARY_FRAGMENT(blt, m) {
  m.def(
      "row_adamw_(Tensor(a!) table, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, Tensor ids, Tensor values, "
      "Tensor count, Tensor scale, float learning_rate, float beta1, float beta2, float eps, float "
      "weight_decay, Tensor step, bool touched_only, int seed, int first_row, Tensor(d!)? rounded=None) -> "
      "()");
}

using Update = void(Tensor& table, Tensor& exp_avg, Tensor& exp_avg_sq, const Tensor& ids,
                    const Tensor& values, const Tensor& count, const Tensor& scale, double learning_rate,
                    double beta1, double beta2, double eps, double weight_decay, const Tensor& step,
                    bool touched_only, int64_t seed, int64_t first_row, const std::optional<Tensor>& rounded);

void meta(Tensor& table, Tensor& exp_avg, Tensor& exp_avg_sq, const Tensor& ids, const Tensor& values,
          const Tensor& count, const Tensor& scale, double, double, double, double, double,
          const Tensor& step, bool, int64_t, int64_t, const std::optional<Tensor>& rounded) {
  check_row_adamw(table, exp_avg, exp_avg_sq, ids, values, count, scale, step, rounded);
}

TORCH_LIBRARY_IMPL(blt, Meta, m) { m.impl("row_adamw_", meta); }

}  // namespace

void check_row_adamw(const Tensor& table, const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& ids,
                     const Tensor& values, const Tensor& count, const Tensor& scale, const Tensor& step,
                     const std::optional<Tensor>& rounded) {
  check_one_device("row_adamw_", {"table", table},
                   {{"exp_avg", exp_avg},
                    {"exp_avg_sq", exp_avg_sq},
                    {"ids", ids},
                    {"values", values},
                    {"count", count},
                    {"scale", scale},
                    {"step", step},
                    {"rounded", rounded.value_or(Tensor())}});
  TORCH_CHECK(table.dim() == 2, "row_adamw_: table must be [R, C], got ", table.sizes());
  const at::ScalarType type = sum_type(table);
  const auto is = [](const at::Tensor& x, at::IntArrayRef sizes, at::ScalarType dtype) {
    return x.sizes() == sizes && x.scalar_type() == dtype && x.is_contiguous();
  };
  const bool first_rounds = exp_avg.scalar_type() == at::kBFloat16 && type == at::kFloat;
  const bool fits = is(table, table.sizes(), type) &&
                    is(exp_avg, table.sizes(), first_rounds ? at::kBFloat16 : type) &&
                    (is(exp_avg_sq, table.sizes(), exp_avg.scalar_type()) ||
                     is(exp_avg_sq, table.sizes().slice(0, 1), type));
  TORCH_CHECK(fits, "row_adamw_: table and moments must be contiguous float32, or all of them float64, ",
              table.sizes(), "; of a float32 table, moments may be bfloat16; exp_avg_sq may be [",
              table.size(0), "], one number for each row, of the table's type; got a table of ",
              table.scalar_type(), ", exp_avg ", exp_avg.scalar_type(), " ", exp_avg.sizes(), ", exp_avg_sq ",
              exp_avg_sq.scalar_type(), " ", exp_avg_sq.sizes());
  TORCH_CHECK(!rounded || (type == at::kFloat && is(*rounded, table.sizes(), at::kBFloat16)),
              "row_adamw_: rounded must be contiguous bfloat16 ", table.sizes(),
              " beside a float32 table, got ", rounded ? rounded->scalar_type() : type, " ",
              rounded ? rounded->sizes() : at::IntArrayRef());
  TORCH_CHECK(ids.dim() == 1 && ids.scalar_type() == at::kInt,
              "row_adamw_: ids must be [capacity] int32, got ", ids.scalar_type(), " ", ids.sizes());
  TORCH_CHECK(values.dim() == 2 && values.size(0) == ids.size(0) && values.size(1) == table.size(1) &&
                  values.is_floating_point(),
              "row_adamw_: values must be floating [", ids.size(0), ", ", table.size(1), "], got ",
              values.scalar_type(), " ", values.sizes());
  TORCH_CHECK(count.numel() == 1 && count.scalar_type() == at::kInt,
              "row_adamw_: count must be one int32, got ", count.scalar_type(), " ", count.sizes());
  TORCH_CHECK(scale.numel() == 1 && scale.scalar_type() == type, "row_adamw_: scale must be one ", type,
              ", got ", scale.scalar_type(), " ", scale.sizes());
  TORCH_CHECK(step.numel() == 1 && step.scalar_type() == at::kFloat,
              "row_adamw_: step must be one float32, got ", step.scalar_type(), " ", step.sizes());
}

void row_adamw_(Tensor& table, Tensor& exp_avg, Tensor& exp_avg_sq, const RowGradient& gradient,
                const Tensor& scale, const AdamWStep& step, const Tensor& rounded) {
  TORCH_CHECK(step.step >= 1, "row_adamw_: steps count from 1, got ", step.step);
  RowGradient rows = gradient;
  if (!rows.ids.defined()) {  // nothing was touched
    const auto ints = table.options().dtype(at::kInt);
    rows.ids = at::empty({0}, ints);
    rows.values = at::empty({0, table.dim() == 2 ? table.size(1) : 0}, table.options());
    rows.count = at::zeros({}, ints);
  }
  static const auto op = schema<Update>("blt::row_adamw_");
  op.call(table, exp_avg, exp_avg_sq, rows.ids, rows.values, rows.count, scale, step.learning_rate,
          step.beta1, step.beta2, step.eps, step.weight_decay,
          step.step_on_device.defined()
              ? step.step_on_device
              : at::full({}, static_cast<double>(step.step), table.options().dtype(at::kFloat)),
          step.touched_only, step.seed, step.first_row,
          rounded.defined() ? std::optional(rounded) : std::nullopt);
}

}  // namespace blt::ops
