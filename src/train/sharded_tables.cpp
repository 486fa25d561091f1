#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>

#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "train/storage.h"
#include "train/tables.h"

namespace blt {
namespace {

class ShardedTables : public Tables {
 public:
  ShardedTables(Group& group, torch::nn::Module& module, WireType wire)
      : Tables(group, module, wire), own_(all().size()) {
    for (size_t t = 0; t < all().size(); ++t)
      all()[t].embedding->fetch_rows = [this, t](const at::Tensor& ids) { return fetch(t, ids); };
  }
  ~ShardedTables() override {
    for (const Table& table : all()) table.embedding->fetch_rows = nullptr;
  }

  bool is_divided() const override { return true; }
  Parts parts() const override { return own_parts(); }

  std::vector<Gradients::Rows> finish_gradients() override {
    divide();  // there may have been no forward pass of the tables
    std::vector<Gradients::Rows> result;
    for (size_t t = 0; t < all().size(); ++t)
      if (const RowGradient rows = exchange(t); rows.ids.defined())
        result.push_back({all()[t].table.name, all()[t].table.parameter, rows, own_[t].view({-1})});
    return result;
  }

  void send_moved(std::vector<Group::Pending>&, bool) override {}

  std::map<std::string, at::Tensor> own_parameters() const override {
    if (!are_divided_) return Tables::own_parameters();
    std::map<std::string, at::Tensor> result;
    for (size_t t = 0; t < all().size(); ++t)
      if (own_[t].numel() > 0) result[all()[t].table.name] = own_[t].view({-1});
    return result;
  }
  bool computes_together() const override { return are_divided_; }

  void make_whole() override {
    if (!std::exchange(are_divided_, false)) return;
    const at::NoGradGuard no_grad;
    std::vector<Group::Pending> coming;
    for (size_t t = 0; t < all().size(); ++t) {
      const at::Tensor whole = all()[t].table.parameter.detach();
      fill_storage(whole);
      const Part rows = own_rows(all()[t]);
      whole.slice(0, rows.begin, rows.end).copy_(std::exchange(own_[t], {}));
      gather_rows(all()[t], coming);
    }
    for (const Group::Pending& one : coming) one->wait();
  }

 private:
  void divide() {
    if (std::exchange(are_divided_, true)) return;
    const at::NoGradGuard no_grad;
    for (size_t t = 0; t < all().size(); ++t) {
      const at::Tensor whole = all()[t].table.parameter.detach();
      const Part rows = own_rows(all()[t]);
      own_[t] = whole.slice(0, rows.begin, rows.end).clone();
      empty_storage(whole);
    }
  }

  at::Tensor no_ids(size_t t) const {
    return at::empty({0}, all()[t].table.parameter.options().dtype(at::kInt).requires_grad(false));
  }

  // How many of some ids, in increasing order, are rows of each rank.
  std::vector<int64_t> counts_by_owner(size_t t, const at::Tensor& ids) const {
    std::vector<int64_t> counts = ends_by_owner(all()[t], ids);
    std::adjacent_difference(counts.begin(), counts.end(), counts.begin());
    return counts;
  }

  // Tells each rank how many rows it will be sent; gives what the others told.
  struct Announced {
    ExchangeCounts counts;
    int64_t total = 0;  // rows that go from any rank to any other
  };
  Announced announce(std::vector<int64_t> sent, std::string_view what) {
    Announced result{.counts = {.sent = std::move(sent), .received = {}}, .total = 0};
    std::vector<int64_t> told;
    for (const int64_t count : result.counts.sent) {
      told.push_back(count);
      told.push_back(result.counts.total_sent());
    }
    told = exchange_numbers(group(), std::move(told), what);
    for (size_t i = 0; i < told.size(); i += 2) {
      result.counts.received.push_back(told[i]);
      result.total += told[i + 1];
    }
    return result;
  }

  // Rows of `from`, sorted by their owners, at their owners.
  at::Tensor exchanged(const at::Tensor& from, const ExchangeCounts& counts, std::string_view what) {
    std::vector<int64_t> sizes = from.sizes().vec();
    sizes[0] = counts.total_received();
    const at::Tensor to = at::empty(sizes, from.options());
    group().all_to_all(to, from.contiguous(), counts, what)->wait();
    return to;
  }

  // Rows with these ids, which all ranks ask for together; of tables that are whole each by itself.
  at::Tensor fetch(size_t t, const at::Tensor& ids) {
    if (at::GradMode::is_enabled()) divide();
    const at::NoGradGuard no_grad;
    if (!are_divided_) return at::index_select(all()[t].table.parameter, 0, ids);
    const ExchangeCounts counts = announce(counts_by_owner(t, ids), "numbers of table look-ups").counts;
    const at::Tensor asked = exchanged(ids, counts, "table look-ups");
    const at::Tensor rows =
        at::index_select(own_[t], 0, asked.sub_(static_cast<int32_t>(own_rows(all()[t]).begin)));
    return exchanged(rows, {.sent = counts.received, .received = counts.sent}, "table rows");
  }

  // This rank's rows, all ranks' gradients of them added up in the order of the ranks; undefined where no rank touched any row.
  RowGradient exchange(size_t t) {
    const at::Tensor& table = all()[t].table.parameter;
    RowGradient touched = take(all()[t]);
    if (!touched.ids.defined())
      touched = {.ids = no_ids(t),
                 .values = at::empty({0, all()[t].width()},
                                     table.options().dtype(gradient_type(table)).requires_grad(false)),
                 .count = {},
                 .capacity = 0};
    const Announced announced = announce(counts_by_owner(t, touched.ids), "numbers of table rows");
    if (announced.total == 0) return {};
    const at::Tensor own_ids = exchanged(touched.ids, announced.counts, "ids of table rows")
                                   .sub_(static_cast<int32_t>(own_rows(all()[t]).begin));
    const at::Tensor values =
        exchanged(touched.values.to(wire_type(all()[t])), announced.counts, "gradients of table rows")
            .to(gradient_type(table));
    std::vector<RowGradient> everybodys;
    int64_t begin = 0;
    for (const int64_t rows : announced.counts.received) {
      if (rows > 0 || everybodys.empty())  // no row at all is a gradient too
        everybodys.push_back({.ids = own_ids.narrow(0, begin, rows),
                              .values = values.narrow(0, begin, rows),
                              .count = at::full({}, rows, own_ids.options()),
                              .capacity = rows});
      begin += rows;
    }
    return ops::merge(everybodys);
  }

  bool are_divided_ = false;
  std::vector<at::Tensor> own_;  // rows of each table, while they are divided
};

}  // namespace

std::unique_ptr<Tables> make_sharded_tables(Group& group, torch::nn::Module& module, WireType wire) {
  return std::make_unique<ShardedTables>(group, module, wire);
}

}  // namespace blt
