// row_adamw_ on the CPU: tensors to pointers, work to threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>

#include "blt/ops/row_adamw.h"
#include "ops/row_adamw/check.h"
#include "ops/row_adamw/cpu_kernel.h"
#include "ops/stochastic_rounding.h"

namespace blt::ops {
namespace {

using at::Tensor;

template <class T, class M>
void run(const Tensor& table, const Tensor& exp_avg, const Tensor& exp_avg_sq, const int32_t* ids,
         int64_t touched, const Tensor& values, double scale, const AdamWStep& step, uint16_t* rounded) {
  using Args = RowAdamW<T, M>;
  const double bias1 = 1.0 - std::pow(step.beta1, step.step), bias2 = 1.0 - std::pow(step.beta2, step.step);
  const Tensor values_ = values.to(table.scalar_type()).contiguous();
  const bool by_row = has_row_moments(exp_avg_sq);
  const Args a{.table = table.data_ptr<T>(),
               .exp_avg = static_cast<M*>(exp_avg.data_ptr()),
               .exp_avg_sq = by_row ? nullptr : static_cast<M*>(exp_avg_sq.data_ptr()),
               .row_sq = by_row ? exp_avg_sq.data_ptr<T>() : nullptr,
               .rounded = rounded,
               .columns = table.size(1),
               .ids = ids,
               .values = values_.const_data_ptr<T>(),
               .count = touched,
               .touched_only = step.touched_only,
               .scale = static_cast<T>(scale),
               .beta1 = static_cast<T>(step.beta1),
               .beta2 = static_cast<T>(step.beta2),
               .eps = static_cast<T>(step.eps),
               .fresh1 = static_cast<T>(1.0 - step.beta1),
               .fresh2 = static_cast<T>(1.0 - step.beta2),
               .keep = static_cast<T>(1.0 - step.learning_rate * step.weight_decay),
               .step_size = static_cast<T>(step.learning_rate / bias1),
               .inverse_root2 = static_cast<T>(1.0 / std::sqrt(bias2)),
               .noise = noise_of_step(static_cast<uint64_t>(step.seed), static_cast<uint64_t>(step.step)),
               .first_row = step.first_row};
  const auto kernel = BLT_KERNEL(row_adamw<Args>);
  constexpr int64_t kGrain = 1 << 15;  // elements
  at::parallel_for(0, table.size(0), std::max<int64_t>(1, kGrain / std::max<int64_t>(1, a.columns)),
                   [&](int64_t first, int64_t last) { kernel(a, first, last); });
}

void row_adamw(Tensor& table, Tensor& exp_avg, Tensor& exp_avg_sq, const Tensor& ids, const Tensor& values,
               const Tensor& count, const Tensor& scale, double learning_rate, double beta1, double beta2,
               double eps, double weight_decay, const Tensor& step, bool touched_only, int64_t seed,
               int64_t first_row, const std::optional<Tensor>& rounded) {
  check_row_adamw(table, exp_avg, exp_avg_sq, ids, values, count, scale, step, rounded);
  const double factor =
      scale.scalar_type() == at::kDouble ? *scale.const_data_ptr<double>() : *scale.const_data_ptr<float>();
  if (!std::isfinite(factor)) return;
  const Tensor ids_ = ids.contiguous();
  const int32_t* rows = ids_.const_data_ptr<int32_t>();
  const int64_t touched = *count.const_data_ptr<int32_t>();
  TORCH_CHECK(touched >= 0 && touched <= ids.size(0), "row_adamw_: count ", touched, " of ", ids.size(0),
              " rows");
  for (int64_t i = 0; i < touched; ++i)
    TORCH_CHECK(rows[i] > (i == 0 ? -1 : rows[i - 1]) && rows[i] < table.size(0),
                "row_adamw_: ids must increase within [0, ", table.size(0), "), got ", rows[i]);
  if (table.numel() == 0) return;
  const AdamWStep settings{.learning_rate = learning_rate,
                           .beta1 = beta1,
                           .beta2 = beta2,
                           .eps = eps,
                           .weight_decay = weight_decay,
                           .step = std::max<int64_t>(1, static_cast<int64_t>(*step.const_data_ptr<float>())),
                           .touched_only = touched_only,
                           .seed = seed,
                           .first_row = first_row};
  const auto move = table.scalar_type() == at::kDouble       ? run<double, double>
                    : exp_avg.scalar_type() == at::kBFloat16 ? run<float, uint16_t>
                                                             : run<float, float>;
  move(table, exp_avg, exp_avg_sq, rows, touched, values, factor, settings,
       rounded ? static_cast<uint16_t*>(rounded->data_ptr()) : nullptr);
}

}  // namespace

TORCH_LIBRARY_IMPL(blt, CPU, m) { m.impl("row_adamw_", row_adamw); }

}  // namespace blt::ops
