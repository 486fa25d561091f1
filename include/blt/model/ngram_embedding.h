// Byte embeddings plus hashed n-gram embeddings (section 3.2.1 of the paper).
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "blt/base/config.h"
#include "blt/batch.h"
#include "blt/model/arriving.h"
#include "blt/model/traced.h"
#include "blt/ops/ngram_embedding.h"

namespace blt {

struct NgramConfig {
  std::vector<int64_t> sizes = {3, 4, 5, 6, 7, 8};
  int64_t rows = 500002;
  int64_t functions = 1;
  double dropout = 0.0;

  static void fields(auto& self, auto&& field) {
    field("sizes", self.sizes, "Lengths n of the hashed n-grams; [] for none.", between(1, 64));
    field("rows", self.rows, "Rows of each table.", between(1, 2e9));
    field("functions", self.functions, "Hash functions, each with a table for every size.", between(1, 64));
    field("dropout", self.dropout,
          "Probability that a byte goes without the row of one table, in training; rows that stay are scaled "
          "up.",
          between(0, 0.999));
  }
  void validate(Errors& errors) const;

  NgramHash hash() const { return {sizes, rows, functions}; }
};

// Sums the byte's own embedding and one row of every n-gram table. The tables have no dense gradient: the
// backward appends touched rows to `row_gradients`, which the optimizer takes and clears. In training mode dropout leaves look-ups
// out; each forward takes its seed from LibTorch's default generator. Not thread-safe, except forward of a model in evaluation mode
// without gradients.
class NgramEmbeddingImpl : public torch::nn::Module, public Traced, public Arriving {
 public:
  NgramEmbeddingImpl(const NgramConfig& config, int64_t dim);

  at::Tensor forward(const at::Tensor& bytes, const Segments& documents);  // [T] int32 -> [T, C]

  at::Tensor byte_table;                   // [V, C]
  at::Tensor ngram_table;                  // [num_tables * rows, C]; undefined without tables
  std::vector<RowGradient> row_gradients;  // ids count from the first row of all tables
  // Set by who divides the tables among processes: gives the rows with these ids ([N] int32, distinct, increasing -> [N, C]).
  // ngram_table is then not read here: there may be nothing behind its shape and type.
  std::function<at::Tensor(const at::Tensor& ids)> fetch_rows;

  const NgramHash& hash() const { return hash_; }

 private:
  NgramHash hash_;
  double dropout_;
};
TORCH_MODULE(NgramEmbedding);

}  // namespace blt
