#include "train/tables.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace blt {

NgramEmbeddingImpl* table_owner(const torch::nn::Module& module, const at::Tensor& parameter) {
  for (const auto& child : module.modules()) {
    auto* embedding = child->as<NgramEmbeddingImpl>();
    if (embedding != nullptr && embedding->ngram_table.is_same(parameter)) return embedding;
  }
  return nullptr;
}

Tables::Tables(Group& group, torch::nn::Module& module, WireType wire) : group_(group), wire_(wire) {
  for (auto& item : module.named_parameters())
    if (NgramEmbeddingImpl* embedding = table_owner(module, item.value());
        embedding != nullptr && item.value().requires_grad())
      tables_.push_back({.table = {item.key(), item.value()}, .embedding = embedding});
}

std::vector<int64_t> Tables::ends_by_owner(const Table& table, const at::Tensor& ids) const {
  const at::Tensor here = ids.cpu();
  const auto* begin = here.const_data_ptr<int32_t>();
  const auto* end = begin + here.numel();
  std::vector<int64_t> ends;
  for (int64_t r = 0; r < group_.size(); ++r)
    ends.push_back(std::lower_bound(begin, end, rows_of(r, table).end) - begin);
  return ends;
}

Parts Tables::own_parts() const {
  Parts parts;
  for (const Table& table : tables_) {
    const Part rows = own_rows(table);
    parts[table.table.name] = {rows.begin * table.width(), rows.end * table.width()};
  }
  return parts;
}

std::map<std::string, at::Tensor> Tables::own_parameters() const {
  std::map<std::string, at::Tensor> result;
  for (const Table& table : tables_) {
    const at::Tensor whole = table.table.parameter.detach();
    const Part rows = own_rows(table);
    if (!is_divided())
      result[table.table.name] = whole;
    else if (rows.begin < rows.end)
      result[table.table.name] = whole.slice(0, rows.begin, rows.end).view({-1});
  }
  return result;
}

at::ScalarType Tables::wire_type(const Table& table) const {
  return wire_ == WireType::kBfloat16 ? at::kBFloat16 : gradient_type(table.table.parameter);
}

RowGradient Tables::take(const Table& table) {
  RowGradient own = ops::merge(table.embedding->row_gradients);
  table.embedding->row_gradients.clear();
  return without_room(own);
}

RowGradient Tables::without_room(const RowGradient& rows) {
  if (!rows.ids.defined()) return rows;
  const int64_t count = rows.count.item<int32_t>();
  return {.ids = rows.ids.narrow(0, 0, count),
          .values = rows.values.narrow(0, 0, count),
          .count = rows.count,
          .capacity = count};
}

void Tables::gather_rows(const Table& table, std::vector<Group::Pending>& coming) const {
  for (int64_t r = 0; r < group_.size(); ++r)
    if (const Part rows = rows_of(r, table); rows.begin < rows.end)
      coming.push_back(group_.broadcast(table.table.parameter.detach().slice(0, rows.begin, rows.end), r,
                                        table.table.name));
}

}  // namespace blt
