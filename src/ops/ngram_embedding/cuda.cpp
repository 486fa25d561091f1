// ngram_ids and ngram_embedding on CUDA: tensors to pointers.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "ops/cuda/glue.h"
#include "ops/ngram_embedding/cuda_kernel.h"
#include "ops/ngram_embedding/hash_plan.h"

namespace blt::ops::BLT_DEVICE {
namespace {

using at::Tensor;

static_assert(std::size(kPrimes) == kNumPrimes);

NgramIds plan(const Tensor& bytes, const Tensor& offsets, const NgramHash& hash,
              const NgramDropout& dropout) {
  const auto num_sizes = static_cast<int64_t>(hash.sizes.size());
  TORCH_CHECK(num_sizes <= kMaxSizes && hash.num_tables() <= kMaxTables,
              "ngram_embedding: on CUDA, there are at most ", kMaxSizes, " group sizes and ", kMaxTables,
              " tables, got ", num_sizes, " and ", hash.num_tables());
  const std::vector<int32_t> tables = by_size(hash);
  NgramIds a{};
  a.bytes = bytes.const_data_ptr<int32_t>();
  a.offsets = device_offsets("ngram_embedding", offsets);
  a.documents = offsets.numel() - 1;
  a.positions = bytes.size(0);
  a.num_sizes = static_cast<int>(num_sizes);
  a.functions = static_cast<int>(hash.functions);
  for (int64_t s = 0; s < num_sizes; ++s) {
    a.tables[s] = tables[s];
    a.sizes[s] = static_cast<int32_t>(std::min<int64_t>(hash.sizes[tables[s]], INT32_MAX));
  }
  std::copy(std::begin(kPrimes), std::end(kPrimes), a.primes);
  a.rows = std::max<int64_t>(1, hash.rows);
  a.seed = static_cast<uint64_t>(dropout.seed);
  a.dropped_below = dropped_below(dropout.probability);
  return a;
}

Tensor hash_ids(const Tensor& bytes, const Tensor& offsets, int64_t, at::IntArrayRef sizes, int64_t rows,
                int64_t functions, double probability, int64_t seed) {
  check_bytes("ngram_ids", bytes, offsets);
  const NgramHash hash = checked_hash(sizes, rows, functions);
  const NgramDropout dropout = checked_dropout(probability, seed);
  const OnDevice device(bytes);
  const Tensor bytes_ = bytes.contiguous();
  Tensor ids = at::empty({bytes.size(0), hash.num_tables()}, bytes.options());
  if (ids.numel() == 0) return ids;
  launch_ngram_ids(plan(bytes_, offsets, hash, dropout), ids.data_ptr<int32_t>(), device.stream());
  return ids;
}

Tensor embedding(const Tensor& bytes, const Tensor& offsets, int64_t, const Tensor& byte_table,
                 const std::optional<Tensor>& ngram_table, at::IntArrayRef sizes, int64_t rows,
                 int64_t functions, double probability, int64_t seed) {
  check_bytes("ngram_embedding", bytes, offsets);
  const NgramHash hash = checked_hash(sizes, rows, functions);
  const NgramDropout dropout = checked_dropout(probability, seed);
  const Tensor table = ngram_table.value_or(Tensor());
  check_tables(bytes, byte_table, table, hash);
  const Storage storage = storage_of("ngram_embedding", byte_table);
  const OnDevice device(bytes);
  const Tensor bytes_ = bytes.contiguous(), byte_table_ = ready(byte_table);
  const Tensor table_ = table.defined() ? ready(table) : table;
  Tensor out = at::empty({bytes.size(0), byte_table.size(1)}, byte_table.options());
  if (out.numel() == 0) return out;
  launch_ngram_embedding(storage,
                         {plan(bytes_, offsets, hash, dropout), byte_table_.const_data_ptr(),
                          table.defined() ? table_.const_data_ptr() : nullptr, out.mutable_data_ptr(),
                          byte_table.size(1), static_cast<float>(dropout.scale())},
                         device.stream());
  return out;
}

BLT_CUDA_KERNELS(m) {
  m.impl("ngram_ids", hash_ids);
  m.impl("ngram_embedding", embedding);
}

}  // namespace
}  // namespace blt::ops::BLT_DEVICE
