#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "train/tables.h"

namespace blt {
namespace {

class ReplicatedTables : public Tables {
 public:
  ReplicatedTables(Group& group, torch::nn::Module& module, WireType wire, bool is_divided)
      : Tables(group, module, wire), is_divided_(is_divided) {}

  bool is_divided() const override { return is_divided_; }

  Parts parts() const override { return is_divided_ ? own_parts() : Parts(); }

  std::vector<Gradients::Rows> finish_gradients() override {
    std::vector<Gradients::Rows> result;
    for (const Table& table : all()) {
      const RowGradient rows = exchange(table);
      if (rows.capacity == 0) continue;
      if (is_divided_)
        result.push_back(own(rows, table));
      else
        result.push_back({table.table.name, table.table.parameter, rows});
    }
    return result;
  }

  void send_moved(std::vector<Group::Pending>& coming) override {
    if (!is_divided_) return;
    for (const Table& table : all()) gather_rows(table, coming);
  }

 private:
  // All ranks' rows, added up in the order of the ranks.
  RowGradient exchange(const Table& table) {
    const RowGradient own = take(table);
    const int64_t ranks = group().size();
    std::vector<int64_t> counts(static_cast<size_t>(ranks));
    counts[static_cast<size_t>(group().rank())] = own.capacity;
    counts = sum_of_counts(group(), std::move(counts), "numbers of table rows");
    const int64_t longest = *std::max_element(counts.begin(), counts.end());
    if (longest == 0) return {};

    const at::TensorOptions options = table.table.parameter.options().requires_grad(false);
    const at::Tensor ids = at::zeros({longest}, options.dtype(at::kInt));
    const at::Tensor values = at::zeros({longest, table.width()}, options.dtype(wire_type(table)));
    if (own.capacity > 0) {
      ids.narrow(0, 0, own.capacity).copy_(own.ids);
      values.narrow(0, 0, own.capacity).copy_(own.values);
    }
    const at::Tensor all_ids = at::empty({ranks * longest}, ids.options());
    const at::Tensor all_values = at::empty({ranks * longest, table.width()}, values.options());
    const Group::Pending ids_come = group().all_gather(all_ids, ids, "ids of table rows");
    group().all_gather(all_values, values, "gradients of table rows")->wait();
    ids_come->wait();
    std::vector<RowGradient> everybodys;
    for (int64_t r = 0; r < ranks; ++r) {
      const int64_t rows = counts[static_cast<size_t>(r)];
      if (rows == 0) continue;
      everybodys.push_back(
          {.ids = all_ids.narrow(0, r * longest, rows),
           .values = all_values.narrow(0, r * longest, rows).to(gradient_type(table.table.parameter)),
           .count = at::full({}, rows, ids.options()),
           .capacity = rows});
    }
    return ops::merge(everybodys);
  }

  // Those that this rank's optimizer moves.
  Gradients::Rows own(const RowGradient& of_all, const Table& table) const {
    const Part inside = own_rows(table);
    const RowGradient rows = without_room(of_all);
    const at::Tensor on_host = rows.ids.cpu();
    const auto* ids = on_host.const_data_ptr<int32_t>();
    const int64_t begin = std::lower_bound(ids, ids + rows.capacity, inside.begin) - ids;
    const int64_t end = std::lower_bound(ids, ids + rows.capacity, inside.end) - ids;
    return {.name = table.table.name,
            .table = table.table.parameter,
            .gradient = {.ids = rows.ids.slice(0, begin, end) - inside.begin,
                         .values = rows.values.slice(0, begin, end).clone(),  // the others may go
                         .count = at::full({}, end - begin, rows.ids.options()),
                         .capacity = end - begin},
            .part = table.table.parameter.detach().slice(0, inside.begin, inside.end).view({-1})};
  }

  bool is_divided_;
};

}  // namespace

std::unique_ptr<Tables> make_replicated_tables(Group& group, torch::nn::Module& module, WireType wire,
                                               bool is_divided) {
  return std::make_unique<ReplicatedTables>(group, module, wire, is_divided);
}

}  // namespace blt
