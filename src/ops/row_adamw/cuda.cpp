// row_adamw_ on CUDA: tensors to pointers.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/pow.h>

#include "ops/cuda/glue.h"
#include "ops/row_adamw/check.h"
#include "ops/row_adamw/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

using at::Tensor;

void row_adamw(Tensor& table, Tensor& exp_avg, Tensor& exp_avg_sq, const Tensor& ids, const Tensor& values,
               const Tensor& count, const Tensor& scale, double learning_rate, double beta1, double beta2,
               double eps, double weight_decay, const Tensor& step, bool touched_only, int64_t seed,
               int64_t first_row, const std::optional<Tensor>& rounded) {
  check_row_adamw(table, exp_avg, exp_avg_sq, ids, values, count, scale, step, rounded);
  TORCH_CHECK(table.scalar_type() == at::kFloat, "row_adamw_: on CUDA, the table must be float32, got ",
              table.scalar_type());
  // They are changed in place: no copy will do.
  for (const Tensor& x : {table, exp_avg, exp_avg_sq, rounded.value_or(table)})
    TORCH_CHECK(
        reinterpret_cast<uintptr_t>(x.const_data_ptr()) % kPackBytes == 0,
        "row_adamw_: on CUDA, the table, its moments and what it is rounded to start at multiples of ",
        kPackBytes, " bytes");
  const OnDevice device(table);
  if (table.numel() == 0 || (touched_only && ids.size(0) == 0)) return;
  const Tensor ids_ = ids.contiguous(), values_ = ready(values.to(at::kFloat));
  // The step is known on the device alone.
  const Tensor taken = step.to(at::kDouble).clamp_min(1);
  const auto bias = [&](double beta) { return at::pow(beta, taken).neg().add(1); };
  const Tensor step_size = (learning_rate / bias(beta1)).to(at::kFloat),
               inverse_root2 = bias(beta2).rsqrt().to(at::kFloat);
  const bool by_row = has_row_moments(exp_avg_sq);
  launch_row_adamw({table.data_ptr<float>(),
                    storage_of("row_adamw_", exp_avg),
                    exp_avg.data_ptr(),
                    by_row ? nullptr : exp_avg_sq.data_ptr(),
                    by_row ? exp_avg_sq.data_ptr<float>() : nullptr,
                    table.size(0),
                    table.size(1),
                    ids_.const_data_ptr<int32_t>(),
                    values_.const_data_ptr<float>(),
                    count.const_data_ptr<int32_t>(),
                    scale.const_data_ptr<float>(),
                    ids.size(0),
                    touched_only,
                    static_cast<float>(beta1),
                    static_cast<float>(beta2),
                    static_cast<float>(eps),
                    static_cast<float>(1.0 - beta1),
                    static_cast<float>(1.0 - beta2),
                    static_cast<float>(1.0 - learning_rate * weight_decay),
                    step_size.const_data_ptr<float>(),
                    inverse_root2.const_data_ptr<float>(),
                    taken.const_data_ptr<double>(),
                    static_cast<uint64_t>(seed),
                    first_row,
                    rounded ? rounded->data_ptr() : nullptr},
                   device.stream());
}

BLT_CUDA_KERNELS(m) { m.impl("row_adamw_", row_adamw); }

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
