// segment_pool on the CPU: tensors to pointers, work to threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/cpu/parallel_segments.h"
#include "ops/door.h"
#include "ops/segment_pool/check.h"
#include "ops/segment_pool/cpu_kernel.h"

namespace blt::ops {
namespace {

using at::Tensor;

// float and double have kernels; the 16-bit types go through float.
at::ScalarType kernel_type(const Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

template <class Kernel>
void share_out(const int32_t* offsets, int64_t count, int64_t columns, const Kernel& kernel) {
  const int64_t parts = (columns + kPoolColumns - 1) / kPoolColumns;
  constexpr int64_t kGrain = 256;  // rows of a block of columns
  parallel_over_segments(
      count, parts, kGrain, [&](int64_t s) { return offsets[s + 1] - offsets[s] + 1; }, kernel);
}

const int32_t* non_empty_offsets(const Tensor& offsets, int64_t rows) {
  const int32_t* values = checked_offsets("segment_pool", offsets, rows);
  for (int64_t s = 0; s + 1 < offsets.numel(); ++s)
    TORCH_CHECK(values[s] < values[s + 1], "segment_pool: segment ", s, " is empty");
  return values;
}

template <class T>
void run(const Tensor& x, const int32_t* offsets, Pooling pooling, const Tensor& out, const Tensor& winners) {
  const SegmentPool<T> a{x.const_data_ptr<T>(), offsets, out.data_ptr<T>(),
                         pooling == Pooling::kMean ? nullptr : winners.data_ptr<int32_t>(), x.size(1)};
  const auto kernel = pooling == Pooling::kMax   ? BLT_KERNEL(segment_max<T>)
                      : pooling == Pooling::kMin ? BLT_KERNEL(segment_min<T>)
                                                 : BLT_KERNEL(segment_mean<T>);
  share_out(offsets, out.size(0), a.columns, [&](int64_t first, int64_t last) { kernel(a, first, last); });
}

template <class T>
void run_backward(const Tensor& grad, const int32_t* offsets, Pooling pooling, const Tensor& winners,
                  const Tensor& grad_x) {
  const bool mean = pooling == Pooling::kMean;
  const SegmentPoolBackward<T> b{grad.const_data_ptr<T>(), offsets,
                                 mean ? nullptr : winners.const_data_ptr<int32_t>(), grad_x.data_ptr<T>(),
                                 grad.size(1)};
  const auto kernel = mean ? BLT_KERNEL(segment_mean_backward<T>) : BLT_KERNEL(segment_winner_backward<T>);
  share_out(offsets, grad.size(0), b.columns, [&](int64_t first, int64_t last) { kernel(b, first, last); });
}

std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& offsets, int64_t, std::string_view name) {
  check_segment_pool(x, offsets);
  const Pooling pooling = pooling_named(name);
  const int32_t* o = non_empty_offsets(offsets, x.size(0));
  const int64_t count = offsets.numel() - 1;
  const Tensor x_ = x.to(kernel_type(x)).contiguous();
  Tensor out = at::empty({count, x.size(1)}, x_.options());
  Tensor winners = at::empty({pooling == Pooling::kMean ? 0 : count, x.size(1)}, x.options().dtype(at::kInt));
  if (x_.scalar_type() == at::kDouble)
    run<double>(x_, o, pooling, out, winners);
  else
    run<float>(x_, o, pooling, out, winners);
  return {out.to(x.scalar_type()), winners};
}

Tensor backward(const Tensor& grad, const Tensor& offsets, int64_t, const Tensor& winners,
                std::string_view name, int64_t rows) {
  const Pooling pooling = pooling_named(name);
  check_segment_pool_backward(grad, offsets, winners, pooling);
  const int32_t* o = non_empty_offsets(offsets, rows);
  const Tensor grad_ = grad.to(kernel_type(grad)).contiguous();
  const Tensor winners_ = winners.contiguous();
  Tensor grad_x = at::empty({rows, grad.size(1)}, grad_.options());
  if (grad_.scalar_type() == at::kDouble)
    run_backward<double>(grad_, o, pooling, winners_, grad_x);
  else
    run_backward<float>(grad_, o, pooling, winners_, grad_x);
  return grad_x.to(grad.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(blt, CPU, m) {
  m.impl("segment_pool", forward);
  m.impl("segment_pool_backward", backward);
}

}  // namespace blt::ops
