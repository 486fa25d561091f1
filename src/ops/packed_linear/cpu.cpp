// packed_linear on the CPU: the layout of a packed weight, work to threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>

#include "ops/cpu/tasks.h"
#include "ops/packed_linear/check.h"
#include "ops/packed_linear/cpu_kernel.h"

namespace blt::ops {
namespace {

using at::Tensor;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// [ceil(out / panel), in, panel]: once for a weight, so plain tensor operations do.
Tensor pack(const Tensor& weight) {
  check_weight(weight);
  const int64_t out = weight.size(0), in = weight.size(1);
  const int64_t panel = panel_columns(weight.scalar_type());
  const int64_t panels = ceil_div(out, panel);
  Tensor padded = at::zeros({panels * panel, in}, weight.options().dtype(panel_dtype(weight.scalar_type())));
  padded.narrow(0, 0, out).copy_(weight);
  return padded.view({panels, panel, in}).transpose(1, 2).contiguous();
}

template <class T>
void multiply(const Tensor& x, const Tensor& panels, const Tensor& out) {
  const PackedLinear<T> a{x.const_data_ptr<T>(),
                          panels.const_data_ptr<T>(),
                          out.data_ptr<T>(),
                          x.size(0),
                          x.size(1),
                          out.size(1)};
  const int64_t row_blocks = ceil_div(a.rows, kLinearRows);
  // Few rows: the panels are shared out among threads, in groups of at least 4096 x 32 elements.
  const int64_t all = panels.size(0);
  const int64_t wanted = ceil_div(4 * at::get_num_threads(), row_blocks);
  const int64_t group = std::clamp(ceil_div(all, wanted),
                                   std::min(all, ceil_div(4096, a.in * std::min(a.rows, kLinearRows))), all);
  const int64_t groups = ceil_div(all, group);
  const auto kernel = BLT_KERNEL(packed_linear<T>);
  run_tasks<T>(row_blocks * groups, kLinearScratch, [&](int64_t task, T* scratch) {
    const int64_t first = task % groups * group;
    kernel(a, task / groups, first, std::min(all, first + group), scratch);
  });
}

Tensor forward(const Tensor& x, const Tensor& panels, int64_t out_features) {
  check_product(x, panels, out_features);
  const Tensor x_ = x.to(panels.scalar_type()).contiguous();
  const Tensor panels_ = panels.contiguous();
  Tensor out = at::empty({x.size(0), out_features}, x_.options());
  if (x.size(1) == 0) return out.zero_().to(x.scalar_type());
  if (out.numel() == 0) return out.to(x.scalar_type());
  if (panels.scalar_type() == at::kDouble)
    multiply<double>(x_, panels_, out);
  else
    multiply<float>(x_, panels_, out);
  return out.to(x.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(blt, CPU, m) {
  m.impl("pack_weight", pack);
  m.impl("packed_linear", forward);
}

}  // namespace blt::ops
