// Products on the CPU: libblt's own for float32 and float64, LibTorch's for the 16-bit types.
//
// On the sizes that layers of a BLT have, a product in panels runs at 95 to 100 % of what a core's fused multiply-adds can do, where MKL
// (at::mm) reaches 75 to 90 % and oneDNN 55 to 98 %: docs/kernels.md. And it promises more: every element is a sum in an order
// that follows from the shapes alone, whatever the number of threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <algorithm>

#include "ops/cpu/kernel_type.h"
#include "ops/cpu/tasks.h"
#include "ops/linear/cpu_kernel.h"
#include "ops/linear/product.h"
#include "ops/packed_linear/panels.h"

namespace blt::ops {
namespace {

using at::Tensor;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Elements along this dimension lie side by side, so that a row's are one stream.
bool is_dense(const Tensor& x, int64_t dim) { return x.stride(dim) == 1 || x.size(dim) == 1; }

constexpr int64_t kTasks = 16;  // enough for as many threads

// Into how many sums an element of the result is divided: for enough tasks, but no sum shorter than 256.
int64_t parts_of(int64_t depth, int64_t blocks) {
  return std::clamp<int64_t>(ceil_div(kTasks, blocks), 1, std::max<int64_t>(depth / 256, 1));
}

// a^T b with a [depth, rows], b [depth, columns].
template <class T>
void turned(const Tensor& a, const Tensor& b, const Tensor& out) {
  const int64_t depth = a.size(0), rows = a.size(1), columns = b.size(1);
  const TurnedProduct<T> product{
      a.const_data_ptr<T>(), b.const_data_ptr<T>(), rows, columns, a.stride(0), b.stride(0)};
  const int64_t down = ceil_div(rows, kTurnedRows);
  const int64_t width =
      down * ceil_div(columns, kTurnedColumns) < kTasks ? kTurnedColumns / 2 : kTurnedColumns;
  const int64_t across = ceil_div(columns, width), blocks = down * across;
  const int64_t parts = parts_of(depth, blocks);
  const int64_t size = rows * columns;
  const Tensor sums = parts == 1 ? out : at::empty({parts, size}, out.options());
  T* const to = sums.data_ptr<T>();
  const auto kernel = BLT_KERNEL(turned_product<T>);
  run_tasks<T>(blocks * parts, kTurnedScratch, [&](int64_t task, T* scratch) {
    const int64_t part = task / blocks, place = task % blocks;
    const int64_t row = place / across * kTurnedRows, column = place % across * width;
    const Block block{row, std::min(rows, row + kTurnedRows), column, std::min(columns, column + width)};
    kernel(product, depth * part / parts, depth * (part + 1) / parts, block, to + part * size, scratch);
  });
  if (parts == 1) return;
  at::parallel_for(0, ceil_div(size, 16), 256, [&](int64_t first, int64_t last) {
    BLT_KERNEL(add_parts<T>)(to, parts, size, first * 16, std::min(size, last * 16), out.data_ptr<T>());
  });
}

Tensor product(const Tensor& a, const Tensor& b) {
  check_factors(a, b);
  const bool has_kernel = a.scalar_type() == at::kFloat || a.scalar_type() == at::kDouble;
  if (has_kernel && is_dense(a, 1)) return times_panels(a, make_panels(b), b.size(1));
  if (has_kernel && is_dense(a, 0) && is_dense(b, 1)) {
    Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
    if (a.size(1) == 0) return out.zero_();
    if (out.numel() == 0) return out;
    with_type(a.scalar_type(), [&](auto zero) { turned<decltype(zero)>(a.t(), b, out); });
    return out;
  }
  return at::mm(a, b);
}

TORCH_LIBRARY_IMPL(blt, CPU, m) { m.impl("product", product); }

}  // namespace
}  // namespace blt::ops
