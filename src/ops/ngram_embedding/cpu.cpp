// ngram_ids and ngram_embedding on the CPU: tensors to pointers, work to threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>

#include "ops/door.h"
#include "ops/ngram_embedding/cpu_kernel.h"
#include "ops/ngram_embedding/hash_plan.h"

namespace blt::ops {
namespace {

using at::Tensor;

// Owns what a HashPlan points at.
class Plan {
 public:
  Plan(const NgramHash& hash, const NgramDropout& dropout) : tables_(by_size(hash)) {
    for (const int32_t table : tables_) sizes_.push_back(hash.sizes[table]);
    for (int64_t f = 0; f < hash.functions; ++f) primes_.push_back(kPrimes[f % std::size(kPrimes)]);
    // Without tables there may be no rows either; nothing is then taken modulo anything.
    plan_ = {.sizes = sizes_.data(),
             .tables = tables_.data(),
             .num_sizes = static_cast<int64_t>(sizes_.size()),
             .primes = primes_.data(),
             .functions = hash.functions,
             .rows = static_cast<uint64_t>(std::max<int64_t>(1, hash.rows)),
             .seed = static_cast<uint64_t>(dropout.seed),
             .dropped_below = dropped_below(dropout.probability)};
  }
  Plan(const Plan&) = delete;

  const HashPlan& operator*() const { return plan_; }

 private:
  std::vector<int64_t> sizes_;
  std::vector<int32_t> tables_;
  std::vector<uint64_t> primes_;
  HashPlan plan_;
};

Bytes checked_bytes(const char* op, const Tensor& bytes, const Tensor& offsets) {
  return {bytes.const_data_ptr<int32_t>(), checked_offsets(op, offsets, bytes.size(0), Cover::kBeginning),
          offsets.numel() - 1};
}

Tensor hash_ids(const Tensor& bytes, const Tensor& offsets, int64_t, at::IntArrayRef sizes, int64_t rows,
                int64_t functions, double dropout, int64_t seed) {
  check_bytes("ngram_ids", bytes, offsets);
  const NgramHash hash = checked_hash(sizes, rows, functions);
  const Plan plan(hash, checked_dropout(dropout, seed));
  const Tensor bytes_ = bytes.contiguous();
  const Bytes text = checked_bytes("ngram_ids", bytes_, offsets);
  Tensor ids = at::empty({bytes.size(0), hash.num_tables()}, bytes.options());
  int32_t* to = ids.data_ptr<int32_t>();
  const auto kernel = BLT_KERNEL(ngram_ids);
  constexpr int64_t kGrain = 1024;  // positions
  at::parallel_for(0, bytes.size(0), kGrain,
                   [&](int64_t first, int64_t last) { kernel(text, *plan, to, first, last); });
  return ids;
}

template <class T>
Tensor embed(const Bytes& text, const Plan& plan, const Tensor& byte_table, const Tensor& ngram_table,
             int64_t tables, double scale, int64_t positions) {
  Tensor out = at::empty({positions, byte_table.size(1)}, byte_table.options());
  const NgramEmbedding<T> a{text,
                            *plan,
                            byte_table.const_data_ptr<T>(),
                            tables == 0 ? nullptr : ngram_table.const_data_ptr<T>(),
                            out.data_ptr<T>(),
                            byte_table.size(1),
                            static_cast<T>(scale)};
  const auto kernel = BLT_KERNEL(ngram_embedding<T>);
  constexpr int64_t kGrain = 64;  // positions
  at::parallel_for(0, positions, kGrain, [&](int64_t first, int64_t last) {
    std::vector<int32_t> scratch(2 * tables);
    kernel(a, scratch.data(), first, last);
  });
  return out;
}

// The 16-bit types: gathered as they are, added in float.
Tensor embed_reduced(const Tensor& bytes, const Tensor& ids, bool all_stay, const Tensor& byte_table,
                     const Tensor& ngram_table, const NgramDropout& dropout) {
  Tensor total = at::embedding(byte_table, bytes).to(at::kFloat);
  for (int64_t t = 0; t < ids.size(1); ++t) {
    const Tensor rows = ids.select(1, t);
    if (all_stay)
      total += at::embedding(ngram_table, rows);
    else  // a row that is left out is any row, times 0
      total.addcmul_(at::embedding(ngram_table, rows.clamp_min(0)).to(at::kFloat),
                     rows.ge(0).to(at::kFloat).mul_(dropout.scale()).unsqueeze(1));
  }
  return total.to(byte_table.scalar_type());
}

Tensor embedding(const Tensor& bytes, const Tensor& offsets, int64_t longest, const Tensor& byte_table,
                 const std::optional<Tensor>& ngram_table, at::IntArrayRef sizes, int64_t rows,
                 int64_t functions, double probability, int64_t seed) {
  check_bytes("ngram_embedding", bytes, offsets);
  const NgramHash hash = checked_hash(sizes, rows, functions);
  const NgramDropout dropout = checked_dropout(probability, seed);
  const Tensor table = ngram_table.value_or(Tensor());
  check_tables(bytes, byte_table, table, hash);
  const Tensor bytes_ = bytes.contiguous();
  const Bytes text = checked_bytes("ngram_embedding", bytes_, offsets);
  const int64_t positions = bytes.size(0), tables = hash.num_tables();
  for (int64_t i = 0; i < positions; ++i)
    TORCH_CHECK(text.ids[i] >= 0 && text.ids[i] < byte_table.size(0), "ngram_embedding: id ", text.ids[i],
                " is not in the vocabulary of ", byte_table.size(0));
  const Plan plan(hash, dropout);
  const Tensor byte_table_ = byte_table.contiguous();
  const Tensor table_ = table.defined() ? table.contiguous() : table;
  if (byte_table.scalar_type() == at::kDouble)
    return embed<double>(text, plan, byte_table_, table_, tables, dropout.scale(), positions);
  if (byte_table.scalar_type() == at::kFloat)
    return embed<float>(text, plan, byte_table_, table_, tables, dropout.scale(), positions);
  const bool all_stay = dropout.probability == 0 && text.offsets[text.documents] == positions;
  return embed_reduced(bytes_, hash_ids(bytes_, offsets, longest, sizes, rows, functions, probability, seed),
                       all_stay, byte_table_, table_, dropout);
}

}  // namespace

TORCH_LIBRARY_IMPL(blt, CPU, m) {
  m.impl("ngram_ids", hash_ids);
  m.impl("ngram_embedding", embedding);
}

}  // namespace blt::ops
