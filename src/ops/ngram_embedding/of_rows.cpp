// N-gram embeddings from rows that were fetched: made of LibTorch's operators and of those of the derivative, on any device.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_unique2.h>
#include <ATen/ops/embedding.h>
#include <torch/csrc/autograd/custom_function.h>

#include <tuple>

#include "blt/ops/ngram_embedding.h"
#include "ops/door.h"
#include "ops/ngram_embedding/derivative.h"
#include "ops/ngram_embedding/hash_plan.h"

namespace blt::ops {
namespace {

using at::Tensor;

Tensor sums(const Tensor& bytes, const Tensor& byte_table, const ops::DistinctRows& distinct,
            const Tensor& rows, const NgramDropout& dropout) {
  const at::ScalarType sum_type = byte_table.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  Tensor total = at::embedding(byte_table, bytes).to(sum_type);
  if (rows.size(0) > 0)  // else every look-up is left out
    for (const Tensor& place : distinct.places.unbind(0)) {
      if (distinct.all_stay)
        total += at::embedding(rows, place);
      else  // a row that is left out is any row, times 0
        total.addcmul_(at::embedding(rows, place.clamp_min(0)).to(sum_type),
                       place.ge(0).to(sum_type).mul_(dropout.scale()).unsqueeze(1));
    }
  return total.to(byte_table.scalar_type());
}

// The rows are an input, so that a graph exists for the tables alone too; their gradient goes to `gradients`.
struct OfRowsFunction : torch::autograd::Function<OfRowsFunction> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& bytes,
                        const Tensor& byte_table, const Tensor& rows, const Tensor& ids,
                        const ops::DistinctRows& distinct, int64_t rows_per_table,
                        const NgramDropout& dropout, std::vector<RowGradient>* gradients) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({bytes, ids});
    context->saved_data["vocabulary"] = byte_table.size(0);
    context->saved_data["rows_per_table"] = rows_per_table;
    context->saved_data["dropout"] = dropout.probability;
    context->saved_data["gradients"] = static_cast<int64_t>(reinterpret_cast<intptr_t>(gradients));
    return sums(bytes, byte_table, distinct, rows, dropout);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    auto& data = context->saved_data;
    torch::autograd::variable_list result(8);
    if (context->needs_input_grad(1))
      result[1] = byte_table_gradient(grads[0], saved[0], data["vocabulary"].toInt());
    auto* gradients =
        reinterpret_cast<std::vector<RowGradient>*>(static_cast<intptr_t>(data["gradients"].toInt()));
    if (gradients != nullptr)
      gradients->push_back(row_gradient(grads[0], saved[1], data["rows_per_table"].toInt(),
                                        {.probability = data["dropout"].toDouble()}));
    return result;
  }
};

}  // namespace

DistinctRows distinct_rows(const Tensor& ids) {
  const at::NoGradGuard no_grad;
  auto [distinct, places, counts] =
      at::_unique2(ids.t().contiguous(), /*sorted=*/true, /*return_inverse=*/true);
  // What is not looked up has id -1, the smallest.
  const bool any_left_out = distinct.size(0) > 0 && distinct[0].item<int32_t>() < 0;
  if (!any_left_out) return {distinct, places};
  return {distinct.slice(0, 1), places - 1, /*all_stay=*/false};
}

Tensor ngram_embedding_of_rows(const Tensor& bytes, const Tensor& byte_table, const Tensor& ids,
                               const DistinctRows& distinct, const Tensor& rows, const NgramHash& hash,
                               std::vector<RowGradient>* gradients, const NgramDropout& dropout) {
  check_bytes("ngram_embedding_of_rows", bytes, distinct.places);
  checked_hash(hash.sizes, hash.rows, hash.functions);
  checked_dropout(dropout.probability, dropout.seed);
  TORCH_CHECK(byte_table.dim() == 2 && byte_table.is_floating_point(),
              "ngram_embedding_of_rows: byte_table must be floating [V, C], got ", byte_table.scalar_type(),
              " ", byte_table.sizes());
  TORCH_CHECK(ids.sizes() == at::IntArrayRef({bytes.size(0), hash.num_tables()}) &&
                  distinct.places.sizes() == at::IntArrayRef({hash.num_tables(), bytes.size(0)}),
              "ngram_embedding_of_rows: ids must be [", bytes.size(0), ", ", hash.num_tables(),
              "] and places its transpose, got ", ids.sizes(), " and ", distinct.places.sizes());
  TORCH_CHECK(rows.sizes() == at::IntArrayRef({distinct.ids.size(0), byte_table.size(1)}),
              "ngram_embedding_of_rows: rows must be [", distinct.ids.size(0), ", ", byte_table.size(1),
              "], got ", rows.sizes());
  check_one_type("ngram_embedding_of_rows", {"byte_table", byte_table}, {{"rows", rows}});
  check_one_device("ngram_embedding_of_rows", {"bytes", bytes}, {{"byte_table", byte_table}, {"ids", ids}});
  if (!at::GradMode::is_enabled() || (gradients == nullptr && !byte_table.requires_grad())) {
    const at::NoGradGuard no_grad;
    return sums(bytes, byte_table, distinct, rows, dropout);
  }
  const Tensor leaf = rows.detach().requires_grad_(gradients != nullptr);
  return OfRowsFunction::apply(bytes, byte_table, leaf, ids, distinct, hash.rows, dropout, gradients);
}

}  // namespace blt::ops
