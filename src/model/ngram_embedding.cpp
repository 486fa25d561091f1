#include "blt/model/ngram_embedding.h"

#include <cmath>
#include <limits>
#include <string>

#include "blt/model/parameters.h"
#include "model/dropout.h"
#include "model/trace_range.h"

namespace blt {

void NgramConfig::validate(Errors& errors) const {
  const int64_t tables = hash().num_tables();
  if (tables > 0 && rows > std::numeric_limits<int32_t>::max() / tables)
    errors.add("rows",
               std::to_string(tables) + " tables of " + std::to_string(rows) +
                   " rows make more than 2^31 - 1 rows in all; choose fewer rows, sizes or functions");
}

NgramEmbeddingImpl::NgramEmbeddingImpl(const NgramConfig& config, int64_t dim)
    : hash_(config.hash()), dropout_(config.dropout) {
  const double std = 1.0 / std::sqrt(static_cast<double>(dim));
  byte_table = register_parameter("byte_table", new_parameter({kVocabulary, dim}));
  truncated_normal_(byte_table, std);
  if (hash_.num_tables() == 0) return;
  ngram_table = register_parameter("ngram_table", new_parameter({hash_.num_tables() * hash_.rows, dim}));
  truncated_normal_(ngram_table, std);
}

at::Tensor NgramEmbeddingImpl::forward(const at::Tensor& bytes, const Segments& documents) {
  const TraceRange range(trace_name);
  NgramDropout dropout;
  if (is_training() && dropout_ > 0 && ngram_table.defined()) dropout = {dropout_, random_seed()};
  if (fetch_rows) {
    const at::Tensor ids = ops::ngram_ids(bytes, documents, hash_, dropout);
    const ops::DistinctRows distinct = ops::distinct_rows(ids);
    const at::Tensor rows = fetch_rows(distinct.ids);  // before others' parameters: it travels in order
    return ops::ngram_embedding_of_rows(bytes, there(byte_table), ids, distinct, rows, hash_,
                                        ngram_table.requires_grad() ? &row_gradients : nullptr, dropout);
  }
  return ops::ngram_embedding(bytes, documents, there(byte_table), ngram_table, hash_, &row_gradients,
                              dropout);
}

}  // namespace blt
