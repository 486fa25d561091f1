// Gradients of tables as sums of rows, on the CPU: pairs (row, source) are sorted by row, then equal rows are added in the order of
// their sources, so that nothing depends on the number of threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>
#include <vector>

#include "ops/cpu/parallel_segments.h"
#include "ops/door.h"
#include "ops/ngram_embedding/check_rows.h"
#include "ops/ngram_embedding/cpu_kernel.h"

namespace blt::ops {
namespace {

using at::Tensor;

// A row of a table, and which source row adds to it.
struct Pair {
  uint32_t row;
  int32_t source;
};

// Sorts by row, keeping the order of equal ones: a radix sort, least significant digit first. Every row is below `rows`.
void sort_pairs(Pair* pairs, int64_t count, uint64_t rows) {
  constexpr int kDigit = 11;
  constexpr uint32_t kMask = (1u << kDigit) - 1;
  std::vector<Pair> other(count);
  Pair* from = pairs;
  Pair* to = other.data();
  const int bits = std::bit_width(rows - 1);
  for (int shift = 0; shift < bits; shift += kDigit) {
    std::vector<int64_t> places(kMask + 1);
    for (int64_t i = 0; i < count; ++i) ++places[(from[i].row >> shift) & kMask];
    std::exclusive_scan(places.begin(), places.end(), places.begin(), int64_t{0});
    for (int64_t i = 0; i < count; ++i) to[places[(from[i].row >> shift) & kMask]++] = from[i];
    std::swap(from, to);
  }
  if (from != pairs) std::copy(from, from + count, pairs);
}

// Equal rows of sorted pairs, as runs.
struct Runs {
  std::vector<int32_t> rows;    // distinct, increasing
  std::vector<int32_t> starts;  // [rows + 1] into the pairs

  explicit Runs(const std::vector<Pair>& pairs) {
    for (size_t i = 0; i < pairs.size(); ++i)
      if (i == 0 || pairs[i].row != pairs[i - 1].row) {
        rows.push_back(static_cast<int32_t>(pairs[i].row));
        starts.push_back(static_cast<int32_t>(i));
      }
    starts.push_back(static_cast<int32_t>(pairs.size()));
  }

  int64_t count() const { return static_cast<int64_t>(rows.size()); }
};

// out[targets[r]] (out[r] without targets) = the sum of run r's sources; source(i) is the address of source row i.
template <class T, class Source>
void sum_runs(const std::vector<Pair>& pairs, const Runs& runs, const int32_t* targets, const Tensor& out,
              const Source& source) {
  std::vector<const T*> sources(pairs.size());
  for (size_t i = 0; i < pairs.size(); ++i) sources[i] = source(pairs[i].source);
  const RowSums<T> a{sources.data(), runs.starts.data(), targets, out.data_ptr<T>(), out.size(1)};
  const auto kernel = BLT_KERNEL(sum_rows<T>);
  constexpr int64_t kGrain = 256;  // rows of a block of columns
  parallel_over_segments(
      runs.count(), (out.size(1) + kSumColumns - 1) / kSumColumns, kGrain,
      [&](int64_t r) { return runs.starts[r + 1] - runs.starts[r] + 1; },
      [&](int64_t first, int64_t last) { kernel(a, first, last); });
}

// Calls f with a value of `type`, float32 or float64.
template <class F>
void with_sum_type(at::ScalarType type, const F& f) {
  if (type == at::kDouble)
    f(double{});
  else
    f(float{});
}

Tensor int32_tensor(const std::vector<int32_t>& values) {
  Tensor result = at::empty({static_cast<int64_t>(values.size())}, at::kInt);
  std::copy(values.begin(), values.end(), result.data_ptr<int32_t>());
  return result;
}

Tensor count_tensor(int64_t count) {
  Tensor result = at::empty({}, at::kInt);
  *result.data_ptr<int32_t>() = static_cast<int32_t>(count);
  return result;
}

// The pairs (ids[i, t], i) without those of id -1, table after table; every table is sorted on its own, at the same time as others.
std::vector<Pair> sorted_pairs(const char* op, const Tensor& ids, int64_t rows) {
  const int64_t positions = ids.size(0), tables = ids.size(1);
  const Tensor ids_ = ids.contiguous();
  const int32_t* id = ids_.const_data_ptr<int32_t>();
  std::vector<Pair> pairs(positions * tables);
  std::vector<int64_t> counts(tables);
  at::parallel_for(0, tables, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      Pair* table = pairs.data() + t * positions;
      int64_t count = 0;
      for (int64_t i = 0; i < positions; ++i) {
        if (id[i * tables + t] == -1) continue;
        const int64_t row = id[i * tables + t] - t * rows;
        TORCH_CHECK(row >= 0 && row < rows, op, ": id ", id[i * tables + t], " is not in table ", t, " of ",
                    rows, " rows");
        table[count++] = {static_cast<uint32_t>(row), static_cast<int32_t>(i)};
      }
      sort_pairs(table, count, rows);
      for (int64_t i = 0; i < count; ++i) table[i].row += static_cast<uint32_t>(t * rows);
      counts[t] = count;
    }
  });
  auto end = pairs.begin();
  for (int64_t t = 0; t < tables; ++t) {
    const auto table = pairs.begin() + t * positions;
    end = end == table ? table + counts[t] : std::copy(table, table + counts[t], end);
  }
  pairs.erase(end, pairs.end());
  return pairs;
}

std::tuple<Tensor, Tensor, Tensor> touched_rows(const Tensor& grad, const Tensor& ids, int64_t rows) {
  check_touched_rows(grad, ids, rows);
  const std::vector<Pair> pairs = sorted_pairs("touched_rows", ids, rows);
  const Runs runs(pairs);
  const Tensor grad_ = grad.to(sum_type(grad)).contiguous();
  Tensor values = at::empty({runs.count(), grad.size(1)}, grad_.options());
  with_sum_type(grad_.scalar_type(), [&]<class T>(T) {
    const T* from = grad_.const_data_ptr<T>();
    sum_runs<T>(pairs, runs, nullptr, values, [&](int64_t i) { return from + i * grad_.size(1); });
  });
  return {int32_tensor(runs.rows), values, count_tensor(runs.count())};
}

Tensor byte_table_gradient(const Tensor& grad, const Tensor& bytes, int64_t vocabulary) {
  check_byte_table_gradient(grad, bytes, vocabulary);
  const std::vector<Pair> pairs = sorted_pairs("byte_table_gradient", bytes.unsqueeze(1), vocabulary);
  const Runs runs(pairs);
  const Tensor grad_ = grad.to(sum_type(grad)).contiguous();
  Tensor table = at::zeros({vocabulary, grad.size(1)}, grad_.options());
  with_sum_type(grad_.scalar_type(), [&]<class T>(T) {
    const T* from = grad_.const_data_ptr<T>();
    sum_runs<T>(pairs, runs, runs.rows.data(), table, [&](int64_t i) { return from + i * grad_.size(1); });
  });
  return table.to(grad.scalar_type());
}

std::tuple<Tensor, Tensor, Tensor> merge_rows(at::TensorList ids, at::TensorList values,
                                              at::TensorList counts) {
  check_merge_rows(ids, values, counts);
  const int64_t columns = values[0].size(-1);
  std::vector<Pair> pairs;
  std::vector<std::pair<size_t, int64_t>> sources;  // of each pair: which gradient, which of its rows
  std::vector<Tensor> values_;
  uint32_t highest = 0;
  for (size_t g = 0; g < ids.size(); ++g) {
    const int64_t count = *counts[g].const_data_ptr<int32_t>();
    TORCH_CHECK(count >= 0 && count <= ids[g].size(0), "merge_rows: count ", count, " of ", ids[g].size(0),
                " rows");
    const Tensor ids_ = ids[g].contiguous();
    const int32_t* id = ids_.const_data_ptr<int32_t>();
    for (int64_t i = 0; i < count; ++i) {
      TORCH_CHECK(id[i] >= 0, "merge_rows: row ", id[i]);
      highest = std::max(highest, static_cast<uint32_t>(id[i]));
      pairs.push_back({static_cast<uint32_t>(id[i]), static_cast<int32_t>(sources.size())});
      sources.emplace_back(g, i);
    }
    values_.push_back(values[g].to(sum_type(values[g])).contiguous());
  }
  sort_pairs(pairs.data(), static_cast<int64_t>(pairs.size()), uint64_t{highest} + 1);
  const Runs runs(pairs);
  Tensor merged = at::empty({runs.count(), columns}, values_[0].options());
  with_sum_type(merged.scalar_type(), [&]<class T>(T) {
    sum_runs<T>(pairs, runs, nullptr, merged, [&](int64_t i) {
      return values_[sources[i].first].template const_data_ptr<T>() + sources[i].second * columns;
    });
  });
  return {int32_tensor(runs.rows), merged.to(values[0].scalar_type()), count_tensor(runs.count())};
}

Tensor rows_norm(const Tensor& values, const Tensor& count) {
  check_rows_norm(values, count);
  return values.narrow(0, 0, *count.const_data_ptr<int32_t>()).norm();
}

}  // namespace

TORCH_LIBRARY_IMPL(blt, CPU, m) {
  m.impl("touched_rows", touched_rows);
  m.impl("byte_table_gradient", byte_table_gradient);
  m.impl("merge_rows", merge_rows);
  m.impl("rows_norm", rows_norm);
}

}  // namespace blt::ops
