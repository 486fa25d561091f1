#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstddef>
#include <memory>
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
    touched_.clear();
    for (const Table& table : all()) {
      const RowGradient rows = exchange(table);
      touched_.emplace_back();
      if (rows.capacity == 0) continue;
      if (is_divided_) {
        const RowGradient exactly = without_room(rows);
        touched_.back() = exactly.ids;
        result.push_back(own(exactly, table));
      } else {
        result.push_back({table.table.name, table.table.parameter, rows});
      }
    }
    return result;
  }

  void send_moved(std::vector<Group::Pending>& coming, bool all_rows) override {
    if (!is_divided_) return;
    for (size_t t = 0; t < all().size(); ++t)
      if (all_rows)
        gather_rows(all()[t], coming);
      else if (touched_[t].defined())
        gather_touched(all()[t], touched_[t], coming);
  }

 private:
  // Rows on their way to where they belong.
  class Rows : public Group::Transfer {
   public:
    Rows(at::Tensor table, at::Tensor ids, at::Tensor values, Group::Pending transfer)
        : table_(std::move(table)),
          ids_(std::move(ids)),
          values_(std::move(values)),
          transfer_(std::move(transfer)) {}
    void wait() override {
      transfer_->wait();
      table_.index_copy_(0, ids_, values_);
    }

   private:
    at::Tensor table_, ids_, values_;
    Group::Pending transfer_;
  };

  // ids: in increasing order, on all ranks.
  void gather_touched(const Table& table, const at::Tensor& ids, std::vector<Group::Pending>& coming) const {
    const at::Tensor whole = table.table.parameter.detach();
    const std::vector<int64_t> ends = ends_by_owner(table, ids);
    for (int64_t r = 0, begin = 0; r < group().size(); begin = ends[static_cast<size_t>(r++)]) {
      const at::Tensor rows = ids.slice(0, begin, ends[static_cast<size_t>(r)]).to(at::kLong);
      if (rows.numel() == 0) continue;
      const at::Tensor values = r == group().rank()
                                    ? at::index_select(whole, 0, rows)
                                    : at::empty({rows.numel(), table.width()}, whole.options());
      coming.push_back(
          std::make_unique<Rows>(whole, rows, values, group().broadcast(values, r, table.table.name)));
    }
  }

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
  Gradients::Rows own(const RowGradient& rows, const Table& table) const {
    const Part inside = own_rows(table);
    const std::vector<int64_t> ends = ends_by_owner(table, rows.ids);
    const int64_t begin = group().rank() == 0 ? 0 : ends[static_cast<size_t>(group().rank() - 1)];
    const int64_t end = ends[static_cast<size_t>(group().rank())];
    return {.name = table.table.name,
            .table = table.table.parameter,
            .gradient = {.ids = rows.ids.slice(0, begin, end) - inside.begin,
                         .values = rows.values.slice(0, begin, end).clone(),  // the others may go
                         .count = at::full({}, end - begin, rows.ids.options()),
                         .capacity = end - begin},
            .part = table.table.parameter.detach().slice(0, inside.begin, inside.end).view({-1})};
  }

  bool is_divided_;
  std::vector<at::Tensor> touched_;  // ids of each table's rows with gradients, of all ranks; undefined: none
};

}  // namespace

std::unique_ptr<Tables> make_replicated_tables(Group& group, torch::nn::Module& module, WireType wire,
                                               bool is_divided) {
  return std::make_unique<ReplicatedTables>(group, module, wire, is_divided);
}

}  // namespace blt
