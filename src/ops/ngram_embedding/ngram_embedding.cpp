// ngram_embedding: schemas, doors, derivative, shapes.
#include "blt/ops/ngram_embedding.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "ops/door.h"
#include "ops/ngram_embedding/check_rows.h"
#include "ops/ngram_embedding/derivative.h"
#include "ops/ngram_embedding/hash_plan.h"

namespace blt::ops {
namespace {

using at::Tensor;

TORCH_LIBRARY_FRAGMENT(blt, m) {
  m.def(
      "ngram_ids(Tensor bytes, Tensor offsets, int longest, int[] sizes, int rows, int functions, "
      "float dropout=0., int seed=0) -> Tensor");
  m.def(
      "ngram_embedding(Tensor bytes, Tensor offsets, int longest, Tensor byte_table, Tensor? ngram_table, "
      "int[] sizes, int rows, int functions, float dropout=0., int seed=0) -> Tensor");
  // Column t of ids [T, tables] lies in [t * rows, (t + 1) * rows), or is -1: no row. values are float32 (float64 for float64 grad). On
  // the CPU the results have `count` rows, elsewhere (and on meta) T * tables.
  m.def("touched_rows(Tensor grad, Tensor ids, int rows) -> (Tensor ids, Tensor values, Tensor count)");
  m.def("byte_table_gradient(Tensor grad, Tensor bytes, int vocabulary) -> Tensor");
  m.def(
      "merge_rows(Tensor[] ids, Tensor[] values, Tensor[] counts) -> (Tensor ids, Tensor values, Tensor "
      "count)");
  m.def("rows_norm(Tensor values, Tensor count) -> Tensor");
}

using Ids = Tensor(const Tensor& bytes, const Tensor& offsets, int64_t longest, at::IntArrayRef sizes,
                   int64_t rows, int64_t functions, double dropout, int64_t seed);
using Embedding = Tensor(const Tensor& bytes, const Tensor& offsets, int64_t longest,
                         const Tensor& byte_table, const std::optional<Tensor>& ngram_table,
                         at::IntArrayRef sizes, int64_t rows, int64_t functions, double dropout,
                         int64_t seed);
using TouchedRows = std::tuple<Tensor, Tensor, Tensor>(const Tensor& grad, const Tensor& ids, int64_t rows);
using ByteTableGradient = Tensor(const Tensor& grad, const Tensor& bytes, int64_t vocabulary);
using MergeRows = std::tuple<Tensor, Tensor, Tensor>(at::TensorList ids, at::TensorList values,
                                                     at::TensorList counts);
using RowsNorm = Tensor(const Tensor& values, const Tensor& count);

Tensor call_ids(const Tensor& bytes, const Tensor& offsets, int64_t longest, const NgramHash& hash,
                const NgramDropout& dropout) {
  static const auto op = schema<Ids>("blt::ngram_ids");
  return op.call(bytes, offsets, longest, hash.sizes, hash.rows, hash.functions, dropout.probability,
                 dropout.seed);
}

Tensor call_embedding(const Tensor& bytes, const Tensor& offsets, int64_t longest, const Tensor& byte_table,
                      const std::optional<Tensor>& ngram_table, const NgramHash& hash,
                      const NgramDropout& dropout) {
  static const auto op = schema<Embedding>("blt::ngram_embedding");
  return op.call(bytes, offsets, longest, byte_table, ngram_table, hash.sizes, hash.rows, hash.functions,
                 dropout.probability, dropout.seed);
}

// The n-gram table is an input, so that a graph exists for it alone too; its gradient goes to `gradients`.
struct NgramEmbeddingFunction : torch::autograd::Function<NgramEmbeddingFunction> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& bytes, const Tensor& offsets,
                        int64_t longest, const Tensor& byte_table, const std::optional<Tensor>& ngram_table,
                        const NgramHash& hash, const NgramDropout& dropout,
                        std::vector<RowGradient>* gradients) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({bytes, offsets});
    context->saved_data["longest"] = longest;
    context->saved_data["vocabulary"] = byte_table.size(0);
    context->saved_data["sizes"] = hash.sizes;
    context->saved_data["rows"] = hash.rows;
    context->saved_data["functions"] = hash.functions;
    context->saved_data["dropout"] = dropout.probability;
    context->saved_data["seed"] = dropout.seed;
    context->saved_data["gradients"] = static_cast<int64_t>(reinterpret_cast<intptr_t>(gradients));
    return call_embedding(bytes, offsets, longest, byte_table, ngram_table, hash, dropout);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    auto& data = context->saved_data;
    torch::autograd::variable_list result(8);
    if (context->needs_input_grad(kByteTable))
      result[3] = byte_table_gradient(grads[0], saved[0], data["vocabulary"].toInt());
    if (!data["sizes"].toIntVector().empty() && context->needs_input_grad(kNgramTable)) {
      auto* gradients =
          reinterpret_cast<std::vector<RowGradient>*>(static_cast<intptr_t>(data["gradients"].toInt()));
      const NgramHash hash{data["sizes"].toIntVector(), data["rows"].toInt(), data["functions"].toInt()};
      const NgramDropout dropout{data["dropout"].toDouble(), data["seed"].toInt()};
      const Tensor ids = call_ids(saved[0], saved[1], data["longest"].toInt(), hash, dropout);
      gradients->push_back(row_gradient(grads[0], ids, hash.rows, dropout));
    }
    return result;
  }

  // Places among the tensors that forward takes.
  static constexpr size_t kByteTable = 2, kNgramTable = 3;
};

void check_documents(const char* op, const Segments& documents, const Tensor& bytes) {
  TORCH_CHECK(documents.offsets.defined() && documents.total <= bytes.size(0), op, ": the documents cover ",
              documents.total, " ids, but bytes has ", bytes.size(0));
}

bool takes_gradient(const Tensor& x) {
  return at::GradMode::is_enabled() && x.defined() && x.requires_grad();
}

Tensor autograd(const Tensor& bytes, const Tensor& offsets, int64_t longest, const Tensor& byte_table,
                const std::optional<Tensor>& ngram_table, at::IntArrayRef sizes, int64_t rows,
                int64_t functions, double dropout, int64_t seed) {
  TORCH_CHECK(!takes_gradient(ngram_table.value_or(Tensor())),
              "ngram_embedding: the schema has no place for the gradient of ngram_table; call "
              "touched_rows, or blt::ops::ngram_embedding in C++");
  return NgramEmbeddingFunction::apply(bytes, offsets, longest, byte_table, ngram_table,
                                       checked_hash(sizes, rows, functions), checked_dropout(dropout, seed),
                                       nullptr);
}

Tensor meta_ids(const Tensor& bytes, const Tensor& offsets, int64_t, at::IntArrayRef sizes, int64_t rows,
                int64_t functions, double dropout, int64_t seed) {
  check_bytes("ngram_ids", bytes, offsets);
  checked_dropout(dropout, seed);
  return bytes.new_empty({bytes.size(0), checked_hash(sizes, rows, functions).num_tables()});
}

Tensor meta_embedding(const Tensor& bytes, const Tensor& offsets, int64_t, const Tensor& byte_table,
                      const std::optional<Tensor>& ngram_table, at::IntArrayRef sizes, int64_t rows,
                      int64_t functions, double dropout, int64_t seed) {
  check_bytes("ngram_embedding", bytes, offsets);
  checked_dropout(dropout, seed);
  check_tables(bytes, byte_table, ngram_table.value_or(Tensor()), checked_hash(sizes, rows, functions));
  return byte_table.new_empty({bytes.size(0), byte_table.size(1)});
}

std::tuple<Tensor, Tensor, Tensor> meta_rows(const Tensor& grad, const Tensor& ids, int64_t rows) {
  check_touched_rows(grad, ids, rows);
  return {ids.new_empty({ids.numel()}), grad.new_empty({ids.numel(), grad.size(1)}, sum_type(grad)),
          ids.new_empty({})};
}

Tensor meta_byte_table(const Tensor& grad, const Tensor& bytes, int64_t vocabulary) {
  check_byte_table_gradient(grad, bytes, vocabulary);
  return grad.new_empty({vocabulary, grad.size(1)});
}

std::tuple<Tensor, Tensor, Tensor> meta_merge(at::TensorList ids, at::TensorList values,
                                              at::TensorList counts) {
  check_merge_rows(ids, values, counts);
  int64_t capacity = 0;
  for (const Tensor& x : ids) capacity += x.size(0);
  return {ids[0].new_empty({capacity}), values[0].new_empty({capacity, values[0].size(1)}),
          counts[0].new_empty({})};
}

Tensor meta_norm(const Tensor& values, const Tensor& count) {
  check_rows_norm(values, count);
  return values.new_empty({});
}

TORCH_LIBRARY_IMPL(blt, Autograd, m) { m.impl("ngram_embedding", autograd); }

TORCH_LIBRARY_IMPL(blt, Meta, m) {
  m.impl("ngram_ids", meta_ids);
  m.impl("ngram_embedding", meta_embedding);
  m.impl("touched_rows", meta_rows);
  m.impl("byte_table_gradient", meta_byte_table);
  m.impl("merge_rows", meta_merge);
  m.impl("rows_norm", meta_norm);
}

}  // namespace

void check_touched_rows(const Tensor& grad, const Tensor& ids, int64_t rows) {
  check_one_device("touched_rows", {"grad", grad}, {{"ids", ids}});
  TORCH_CHECK(ids.dim() == 2 && ids.scalar_type() == at::kInt,
              "touched_rows: ids must be [T, tables] int32, got ", ids.scalar_type(), " ", ids.sizes());
  TORCH_CHECK(grad.dim() == 2 && grad.size(0) == ids.size(0) && grad.is_floating_point(),
              "touched_rows: grad must be floating [", ids.size(0), ", C], got ", grad.scalar_type(), " ",
              grad.sizes());
  TORCH_CHECK(rows >= 1 && ids.numel() < INT32_MAX && ids.size(1) <= INT32_MAX / rows,
              "touched_rows: ", ids.size(0), " x ", ids.size(1), " ids of ", rows, " rows");
}

void check_byte_table_gradient(const Tensor& grad, const Tensor& bytes, int64_t vocabulary) {
  check_one_device("byte_table_gradient", {"grad", grad}, {{"bytes", bytes}});
  TORCH_CHECK(bytes.dim() == 1 && bytes.scalar_type() == at::kInt,
              "byte_table_gradient: bytes must be [T] int32, got ", bytes.scalar_type(), " ", bytes.sizes());
  TORCH_CHECK(grad.dim() == 2 && grad.size(0) == bytes.size(0) && grad.is_floating_point(),
              "byte_table_gradient: grad must be floating [", bytes.size(0), ", C], got ", grad.scalar_type(),
              " ", grad.sizes());
  TORCH_CHECK(vocabulary >= 1 && vocabulary <= INT32_MAX && bytes.numel() < INT32_MAX,
              "byte_table_gradient: ", bytes.numel(), " bytes of a vocabulary of ", vocabulary);
}

void check_merge_rows(at::TensorList ids, at::TensorList values, at::TensorList counts) {
  TORCH_CHECK(!ids.empty() && ids.size() == values.size() && ids.size() == counts.size(),
              "merge_rows: ", ids.size(), " ids, ", values.size(), " values and ", counts.size(), " counts");
  int64_t capacity = 0;
  for (size_t g = 0; g < ids.size(); ++g) {
    check_one_type("merge_rows", {"values[0]", values[0]}, {{"another of values", values[g]}});
    check_one_device("merge_rows", {"values[0]", values[0]}, {{"ids", ids[g]}, {"counts", counts[g]}});
    TORCH_CHECK(ids[g].dim() == 1 && ids[g].scalar_type() == at::kInt && counts[g].numel() == 1 &&
                    counts[g].scalar_type() == at::kInt,
                "merge_rows: ids must be [rows] and counts [] int32, got ", ids[g].scalar_type(), " ",
                ids[g].sizes(), " and ", counts[g].scalar_type(), " ", counts[g].sizes());
    TORCH_CHECK(values[g].dim() == 2 && values[g].size(0) == ids[g].size(0) &&
                    values[g].size(1) == values[0].size(1) && values[g].is_floating_point(),
                "merge_rows: values must be floating [", ids[g].size(0), ", ", values[0].size(-1), "], got ",
                values[g].scalar_type(), " ", values[g].sizes());
    capacity += ids[g].size(0);
  }
  TORCH_CHECK(capacity < INT32_MAX, "merge_rows: ", capacity, " rows");
}

void check_rows_norm(const Tensor& values, const Tensor& count) {
  check_one_device("rows_norm", {"values", values}, {{"count", count}});
  TORCH_CHECK(values.dim() == 2 && values.is_floating_point() && count.scalar_type() == at::kInt &&
                  count.numel() == 1,
              "rows_norm: values must be floating [rows, C] and count int32 [], got ", values.scalar_type(),
              " ", values.sizes(), " and ", count.scalar_type(), " ", count.sizes());
}

Tensor byte_table_gradient(const Tensor& grad, const Tensor& bytes, int64_t vocabulary) {
  static const auto op = schema<ByteTableGradient>("blt::byte_table_gradient");
  return op.call(grad, bytes, vocabulary);
}

RowGradient row_gradient(const Tensor& grad, const Tensor& ids, int64_t rows, const NgramDropout& dropout) {
  static const auto op = schema<TouchedRows>("blt::touched_rows");
  RowGradient result;
  std::tie(result.ids, result.values, result.count) = op.call(grad, ids, rows);
  if (dropout.probability > 0) result.values.mul_(dropout.scale());
  result.capacity = result.ids.size(0);
  return result;
}

uint64_t dropped_below(double probability) {
  const double numbers = std::ldexp(probability, 64);
  return numbers < std::ldexp(1.0, 64) ? static_cast<uint64_t>(numbers)
                                       : std::numeric_limits<uint64_t>::max();
}

NgramHash checked_hash(at::IntArrayRef sizes, int64_t rows, int64_t functions) {
  NgramHash hash{sizes.vec(), rows, functions};
  if (sizes.empty()) return hash;
  for (const int64_t size : sizes)
    TORCH_CHECK(size >= 1, "ngram_embedding: group sizes start at 1, got ", size);
  TORCH_CHECK(rows >= 1, "ngram_embedding: a table has at least 1 row, got ", rows);
  TORCH_CHECK(functions >= 1, "ngram_embedding: at least 1 hash function, got ", functions);
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  TORCH_CHECK(functions <= kMost && rows <= kMost / hash.num_tables(), "ngram_embedding: ", hash.num_tables(),
              " tables of ", rows, " rows have 2^31 rows or more");
  return hash;
}

NgramDropout checked_dropout(double probability, int64_t seed) {
  TORCH_CHECK(probability >= 0 && probability <= 1,
              "ngram_embedding: the probability of dropout lies between 0 and 1, got ", probability);
  return {probability, seed};
}

std::vector<int32_t> by_size(const NgramHash& hash) {
  std::vector<int32_t> result(hash.sizes.size());
  std::iota(result.begin(), result.end(), 0);
  std::stable_sort(result.begin(), result.end(),
                   [&](int32_t a, int32_t b) { return hash.sizes[a] < hash.sizes[b]; });
  return result;
}

void check_bytes(const char* op, const Tensor& bytes, const Tensor& offsets) {
  TORCH_CHECK(bytes.dim() == 1 && bytes.scalar_type() == at::kInt, op, ": bytes must be [T] int32, got ",
              bytes.scalar_type(), " ", bytes.sizes());
  check_one_device(op, {"bytes", bytes}, {{"offsets", offsets}});
}

void check_tables(const Tensor& bytes, const Tensor& byte_table, const Tensor& ngram_table,
                  const NgramHash& hash) {
  check_one_device("ngram_embedding", {"bytes", bytes}, {{"byte_table", byte_table}});
  TORCH_CHECK(byte_table.dim() == 2 && byte_table.is_floating_point(),
              "ngram_embedding: byte_table must be floating [V, C], got ", byte_table.scalar_type(), " ",
              byte_table.sizes());
  const int64_t tables = hash.num_tables();
  TORCH_CHECK(ngram_table.defined() == (tables > 0), "ngram_embedding: ", tables,
              " tables, but ngram_table is ", ngram_table.defined() ? "defined" : "undefined");
  if (tables == 0) return;
  TORCH_CHECK(ngram_table.dim() == 2 && ngram_table.size(0) == tables * hash.rows &&
                  ngram_table.size(1) == byte_table.size(1),
              "ngram_embedding: ngram_table must be [", tables * hash.rows, ", ", byte_table.size(1),
              "], got ", ngram_table.sizes());
  check_one_type("ngram_embedding", {"byte_table", byte_table}, {{"ngram_table", ngram_table}});
}

Tensor ngram_ids(const Tensor& bytes, const Segments& documents, const NgramHash& hash,
                 const NgramDropout& dropout) {
  check_bytes("ngram_ids", bytes, documents.offsets);
  check_documents("ngram_ids", documents, bytes);
  return call_ids(bytes, documents.offsets, documents.longest,
                  checked_hash(hash.sizes, hash.rows, hash.functions),
                  checked_dropout(dropout.probability, dropout.seed));
}

Tensor ngram_embedding(const Tensor& bytes, const Segments& documents, const Tensor& byte_table,
                       const Tensor& ngram_table, const NgramHash& hash, std::vector<RowGradient>* gradients,
                       const NgramDropout& dropout) {
  check_bytes("ngram_embedding", bytes, documents.offsets);
  check_documents("ngram_embedding", documents, bytes);
  check_tables(bytes, byte_table, ngram_table, checked_hash(hash.sizes, hash.rows, hash.functions));
  checked_dropout(dropout.probability, dropout.seed);
  const auto table = ngram_table.defined() ? std::optional<Tensor>(ngram_table) : std::nullopt;
  if (!takes_gradient(ngram_table) && !takes_gradient(byte_table))
    return call_embedding(bytes, documents.offsets, documents.longest, byte_table, table, hash, dropout);
  TORCH_CHECK(gradients != nullptr || !takes_gradient(ngram_table),
              "ngram_embedding: ngram_table takes a gradient, but `gradients` is null");
  return NgramEmbeddingFunction::apply(bytes, documents.offsets, documents.longest, byte_table, table, hash,
                                       dropout, gradients);
}

RowGradient merge(const std::vector<RowGradient>& gradients) {
  std::vector<Tensor> ids, values, counts;
  for (const RowGradient& gradient : gradients) {
    if (!gradient.ids.defined()) continue;
    ids.push_back(gradient.ids);
    values.push_back(gradient.values);
    counts.push_back(gradient.count);
  }
  if (ids.empty()) return {};
  if (ids.size() == 1) return {ids[0], values[0], counts[0], ids[0].size(0)};
  static const auto op = schema<MergeRows>("blt::merge_rows");
  RowGradient merged;
  std::tie(merged.ids, merged.values, merged.count) = op.call(ids, values, counts);
  merged.capacity = merged.ids.size(0);
  return merged;
}

Tensor norm(const RowGradient& gradient) {
  static const auto op = schema<RowsNorm>("blt::rows_norm");
  return op.call(gradient.values, gradient.count);
}

}  // namespace blt::ops
