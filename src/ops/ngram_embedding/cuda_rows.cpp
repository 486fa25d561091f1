// Gradients of tables as sums of rows, on CUDA: tensors to pointers. What is touched stays on the device; memory is what could be.
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/cuda/glue.h"
#include "ops/ngram_embedding/check_rows.h"
#include "ops/ngram_embedding/cuda_rows_kernel.h"

namespace blt::ops::BLT_DEVICE {
namespace {

using at::Tensor;

Tensor ints(int64_t count, const Tensor& like) { return at::empty({count}, like.options().dtype(at::kInt)); }

// Pairs of a key and a source, to be filled by launch_row_keys, then sorted. Keys, sources and how many there are have 32 bits.
struct Pairs {
  Tensor keys, sources;
  int32_t none;

  Pairs(int64_t count, int64_t largest_key_and_one, const Tensor& like)
      : keys(ints(count, like)),
        sources(ints(count, like)),
        none(static_cast<int32_t>(largest_key_and_one)) {}

  void sort(Stream stream) {
    const Tensor sorted_keys = ints(keys.size(0), keys), sorted_sources = ints(keys.size(0), keys);
    const auto run = [&](void* workspace, size_t bytes) {
      return sort_rows(workspace, bytes, keys.const_data_ptr<int32_t>(), sorted_keys.data_ptr<int32_t>(),
                       sources.const_data_ptr<int32_t>(), sorted_sources.data_ptr<int32_t>(),
                       static_cast<int32_t>(keys.size(0)), none, stream);
    };
    const size_t bytes = run(nullptr, 0);
    const Tensor workspace = at::empty({static_cast<int64_t>(bytes)}, keys.options().dtype(at::kByte));
    run(workspace.mutable_data_ptr(), bytes);
    keys = sorted_keys;
    sources = sorted_sources;
  }
};

// Of runs of equal keys.
struct Sums {
  Tensor ids, values, count;
};

// Row r of the values is that of run r; with `table`, the rows of it that keys name are written, and no ids.
Sums sum_runs(const Pairs& sorted, const Tensor& from, const Tensor& table, Stream stream) {
  const int64_t pairs = sorted.keys.size(0), columns = from.size(1);
  const auto floats = from.options().dtype(at::kFloat);
  const Sums result{table.defined() ? Tensor() : ints(pairs, sorted.keys),
                    table.defined() ? table : at::empty({pairs, columns}, floats),
                    at::empty({}, sorted.keys.options())};
  const Tensor before = ints(parts(pairs), sorted.keys),
               partial = at::empty({parts(pairs), 2, columns}, floats);
  const RowRuns runs{sorted.keys.const_data_ptr<int32_t>(), pairs, sorted.none, before.data_ptr<int32_t>(),
                     result.count.data_ptr<int32_t>()};
  launch_row_runs(runs, stream);
  launch_row_sums(storage_of("touched_rows", from), /*to_float=*/!table.defined(),
                  {runs, sorted.sources.const_data_ptr<int32_t>(), from.const_data_ptr(),
                   table.defined() ? nullptr : result.ids.data_ptr<int32_t>(),
                   result.values.mutable_data_ptr(), partial.data_ptr<float>(), columns},
                  stream);
  return result;
}

using Rows = std::tuple<Tensor, Tensor, Tensor>;

Rows no_rows(int64_t capacity, int64_t columns, const Tensor& like) {
  return {ints(capacity, like), at::empty({capacity, columns}, like.options().dtype(at::kFloat)),
          at::zeros({}, like.options().dtype(at::kInt))};
}

Rows touched_rows(const Tensor& grad, const Tensor& ids, int64_t rows) {
  check_touched_rows(grad, ids, rows);
  const OnDevice device(grad);
  const int64_t capacity = ids.numel();
  if (capacity == 0) return no_rows(capacity, grad.size(1), grad);
  const Tensor grad_ = ready(grad), ids_ = ids.contiguous();
  Pairs pairs(capacity, ids.size(1) * rows, ids_);
  launch_row_keys(ids_.const_data_ptr<int32_t>(), capacity, nullptr, ids.size(1), 0, pairs.none,
                  pairs.keys.data_ptr<int32_t>(), pairs.sources.data_ptr<int32_t>(), device.stream());
  pairs.sort(device.stream());
  const Sums sums = sum_runs(pairs, grad_, Tensor(), device.stream());
  return {sums.ids, sums.values, sums.count};
}

Tensor byte_table_gradient(const Tensor& grad, const Tensor& bytes, int64_t vocabulary) {
  check_byte_table_gradient(grad, bytes, vocabulary);
  const OnDevice device(grad);
  Tensor table = at::zeros({vocabulary, grad.size(1)}, grad.options());
  if (grad.numel() == 0) return table;
  const Tensor grad_ = ready(grad), bytes_ = bytes.contiguous();
  Pairs pairs(bytes.size(0), vocabulary, bytes_);
  launch_row_keys(bytes_.const_data_ptr<int32_t>(), bytes.size(0), nullptr, 1, 0, pairs.none,
                  pairs.keys.data_ptr<int32_t>(), pairs.sources.data_ptr<int32_t>(), device.stream());
  pairs.sort(device.stream());
  sum_runs(pairs, grad_, table, device.stream());
  return table;
}

Rows merge_rows(at::TensorList ids, at::TensorList values, at::TensorList counts) {
  check_merge_rows(ids, values, counts);
  TORCH_CHECK(values[0].scalar_type() == at::kFloat, "merge_rows: on CUDA, values must be Float, got ",
              values[0].scalar_type());
  const int64_t columns = values[0].size(1);
  int64_t capacity = 0;
  for (const Tensor& x : ids) capacity += x.size(0);
  const OnDevice device(values[0]);
  if (capacity == 0) return no_rows(capacity, columns, values[0]);
  Pairs pairs(capacity, INT32_MAX, ids[0]);
  int64_t first = 0;
  for (size_t g = 0; g < ids.size(); ++g) {
    const int64_t size = ids[g].size(0);
    if (size == 0) continue;
    const Tensor ids_ = ids[g].contiguous();
    launch_row_keys(ids_.const_data_ptr<int32_t>(), size, counts[g].const_data_ptr<int32_t>(), 1, first,
                    pairs.none, pairs.keys.data_ptr<int32_t>() + first,
                    pairs.sources.data_ptr<int32_t>() + first, device.stream());
    first += size;
  }
  pairs.sort(device.stream());
  const Sums sums = sum_runs(pairs, ready(at::cat(values)), Tensor(), device.stream());
  return {sums.ids, sums.values, sums.count};
}

Tensor rows_norm(const Tensor& values, const Tensor& count) {
  check_rows_norm(values, count);
  TORCH_CHECK(values.scalar_type() == at::kFloat, "rows_norm: on CUDA, values must be Float, got ",
              values.scalar_type());
  const OnDevice device(values);
  if (values.numel() == 0) return at::zeros({}, values.options());
  const Tensor values_ = ready(values), norm = at::empty({}, values.options());
  const Tensor partial = at::empty({kNormBlocks}, values.options().dtype(at::kDouble));
  launch_rows_norm({values_.const_data_ptr<float>(), count.const_data_ptr<int32_t>(),
                    partial.data_ptr<double>(), norm.data_ptr<float>(), values_.size(1)},
                   device.stream());
  return norm;
}

BLT_CUDA_KERNELS(m) {
  m.impl("touched_rows", touched_rows);
  m.impl("byte_table_gradient", byte_table_gradient);
  m.impl("merge_rows", merge_rows);
  m.impl("rows_norm", rows_norm);
}

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
