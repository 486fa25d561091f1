#include "ops/packed_linear/panels.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "ops/cpu/kernel_type.h"
#include "ops/cpu/tasks.h"
#include "ops/packed_linear/cpu_kernel.h"

namespace blt::ops {
namespace {

using at::Tensor;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T>
Tensor pack(const Tensor& b) {
  const int64_t depth = b.size(0), columns = b.size(1), count = ceil_div(columns, kLinearPanel<T>);
  Tensor panels = at::empty({count, depth, kLinearPanel<T>}, b.options());
  const PanelSource<T> source{b.const_data_ptr<T>(), panels.data_ptr<T>(), depth, columns,
                              b.stride(0),           b.stride(1)};
  constexpr int64_t kGrain = 1 << 16;  // elements that are worth handing to a thread
  at::parallel_for(0, count, ceil_div(kGrain, depth * kLinearPanel<T> + 1), [&](int64_t first, int64_t last) {
    BLT_KERNEL(pack_panels<T>)(source, first, last);
  });
  return panels;
}

template <class T>
void multiply(const Tensor& x, const Tensor& panels, const Tensor& out) {
  const PackedLinear<T> a{x.const_data_ptr<T>(),
                          panels.const_data_ptr<T>(),
                          out.data_ptr<T>(),
                          x.size(0),
                          x.size(1),
                          out.size(1),
                          x.stride(0)};
  const int64_t row_blocks = ceil_div(a.rows, kLinearRows);
  // Few rows: the panels are shared out among threads, in groups of at least 4096 x 32 elements.
  const int64_t all = panels.size(0);
  const int64_t wanted = ceil_div(8 * at::get_num_threads(), row_blocks);
  const int64_t group = std::clamp(ceil_div(all, wanted),
                                   std::min(all, ceil_div(4096, a.in * std::min(a.rows, kLinearRows))), all);
  const int64_t groups = ceil_div(all, group);
  const auto kernel = BLT_KERNEL(packed_linear<T>);
  run_tasks<T>(row_blocks * groups, kLinearScratch, [&](int64_t task, T* scratch) {
    const int64_t first = task % groups * group;
    kernel(a, task / groups, first, std::min(all, first + group), scratch);
  });
}

}  // namespace

Tensor make_panels(const Tensor& b) {
  Tensor panels;
  with_type(b.scalar_type(), [&](auto zero) { panels = pack<decltype(zero)>(b); });
  return panels;
}

Tensor times_panels(const Tensor& x, const Tensor& panels, int64_t columns) {
  Tensor out = at::empty({x.size(0), columns}, x.options());
  if (x.size(1) == 0) return out.zero_();
  if (out.numel() == 0) return out;
  with_type(x.scalar_type(), [&](auto zero) { multiply<decltype(zero)>(x, panels, out); });
  return out;
}

}  // namespace blt::ops
