#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "train/tables.h"

namespace blt {
namespace {

class ShardedTables : public Tables {
 public:
  ShardedTables(Group& group, torch::nn::Module& module, WireType wire) : Tables(group, module, wire) {
    for (const Table& table : all()) {
      at::Tensor parameter = table.table.parameter;
      whole_rows_.push_back(parameter.size(0));
      const Part own = range(group.rank(), whole_rows_.size() - 1);
      parameter.set_data(parameter.variable_data().slice(0, own.begin, own.end).clone());
      table.embedding->fetch_rows = [this, t = whole_rows_.size() - 1](const at::Tensor& ids) {
        return look_up(t, ids);
      };
    }
  }
  ~ShardedTables() override {
    for (const Table& table : all()) table.embedding->fetch_rows = nullptr;
  }

  bool is_divided() const override { return true; }

  Parts parts_of(int64_t rank) const override {
    Parts parts;
    for (size_t t = 0; t < all().size(); ++t) {
      const Part rows = range(rank, t);
      const int64_t width = all()[t].table.parameter.size(1);
      parts[all()[t].table.name] = {rows.begin * width, rows.end * width, {whole_rows_[t], width}};
    }
    return parts;
  }

  std::vector<Gradients::Rows> finish_gradients() override {
    std::vector<Gradients::Rows> result;
    for (size_t t = 0; t < all().size(); ++t)
      if (const RowGradient rows = exchange(t); rows.ids.defined())
        result.push_back({all()[t].table.name, all()[t].table.parameter, rows});
    return result;
  }

  void send_moved(std::vector<Group::Pending>&) override {}

  void finish_forwards() override {
    const at::NoGradGuard no_grad;
    // In the order of the others' forward passes.
    for (size_t t = 0; !all().empty(); t = (t + 1) % all().size()) {
      const auto counts = agree_on_look_ups(t, no_ids(t), /*is_done=*/true);
      if (!counts) return;
      serve(t, no_ids(t), *counts);
    }
  }

  void with_whole(const std::function<void()>& body) override {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> shares;
    for (size_t t = 0; t < all().size(); ++t) {
      at::Tensor parameter = all()[t].table.parameter;
      shares.push_back(parameter.variable_data());
      const at::Tensor whole = gather_to_first(t, shares.back());
      if (group().is_first()) parameter.set_data(whole);
    }
    const auto put_back = [&] {
      for (size_t t = 0; t < all().size(); ++t) {
        at::Tensor parameter = all()[t].table.parameter;
        parameter.set_data(shares[t]);
      }
    };
    try {
      if (group().is_first()) body();
    } catch (...) {
      put_back();
      throw;
    }
    put_back();
  }

 private:
  Part range(int64_t rank, size_t t) const { return rows_of(rank, group().size(), whole_rows_[t]); }
  const at::Tensor& share(size_t t) const { return all()[t].table.parameter; }
  at::Tensor no_ids(size_t t) const { return at::empty({0}, share(t).options().dtype(at::kInt)); }

  // How many of some ids, in increasing order, are rows of each rank.
  std::vector<int64_t> counts_by_owner(size_t t, const at::Tensor& ids) const {
    const at::Tensor here = ids.cpu();
    const auto* begin = here.const_data_ptr<int32_t>();
    const auto* end = begin + here.numel();
    std::vector<int64_t> counts;
    for (int64_t r = 0; r < group().size(); ++r) {
      const auto* next = std::lower_bound(begin, end, range(r, t).end);
      counts.push_back(next - begin);
      begin = next;
    }
    return counts;
  }

  // Tells each rank how many rows it will be sent, and one number that is the same for all; gives what the others told.
  struct Announced {
    ExchangeCounts counts;
    int64_t sum = 0;  // of the ranks' numbers
  };
  Announced announce(std::vector<int64_t> sent, int64_t number, std::string_view what) {
    std::vector<int64_t> told;
    for (const int64_t count : sent) {
      told.push_back(count);
      told.push_back(number);
    }
    told = exchange_numbers(group(), std::move(told), what);
    Announced result{.counts = {.sent = std::move(sent), .received = {}}, .sum = 0};
    for (size_t i = 0; i < told.size(); i += 2) {
      result.counts.received.push_back(told[i]);
      result.sum += told[i + 1];
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

  at::Tensor look_up(size_t t, const at::Tensor& ids) {
    const at::NoGradGuard no_grad;
    const auto counts = agree_on_look_ups(t, ids, /*is_done=*/false);
    TORCH_INTERNAL_ASSERT(counts);  // not all are done: this rank is not
    return serve(t, ids, *counts);
  }

  // None where no rank has anything to look up any more.
  std::optional<ExchangeCounts> agree_on_look_ups(size_t t, const at::Tensor& ids, bool is_done) {
    const Announced all = announce(counts_by_owner(t, ids), is_done ? 0 : 1, "numbers of table look-ups");
    return all.sum == 0 ? std::nullopt : std::optional(all.counts);
  }

  // Sends the rows that others ask for, and gives those that this rank asks for.
  at::Tensor serve(size_t t, const at::Tensor& ids, const ExchangeCounts& counts) {
    const at::Tensor asked = exchanged(ids, counts, "table look-ups");
    const at::Tensor rows = at::index_select(
        share(t).detach(), 0, asked.sub_(static_cast<int32_t>(range(group().rank(), t).begin)));
    return exchanged(rows, {.sent = counts.received, .received = counts.sent}, "table rows");
  }

  // This rank's rows, all ranks' gradients of them added up in the order of the ranks; undefined where no rank touched any row.
  RowGradient exchange(size_t t) {
    RowGradient touched = take(all()[t]);
    const at::TensorOptions options = share(t).options().requires_grad(false);
    const int64_t width = share(t).size(1);
    if (!touched.ids.defined())
      touched = {.ids = no_ids(t),
                 .values = at::empty({0, width}, options.dtype(sum_type(all()[t]))),
                 .count = {},
                 .capacity = 0};
    const int64_t count =
        touched.count.defined() ? touched.count.item<int32_t>() : 0;  // not a capacity: it travels
    const at::Tensor ids = touched.ids.narrow(0, 0, count);
    const Announced announced = announce(counts_by_owner(t, ids), count, "numbers of table rows");
    if (announced.sum == 0) return {};
    const at::Tensor own_ids = exchanged(ids, announced.counts, "ids of table rows")
                                   .sub_(static_cast<int32_t>(range(group().rank(), t).begin));
    const at::Tensor values = exchanged(touched.values.narrow(0, 0, count).to(wire_type(all()[t])),
                                        announced.counts, "gradients of table rows")
                                  .to(sum_type(all()[t]));
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

  // At the first rank: the whole of a tensor of which each rank has its rows.
  at::Tensor gather_to_first(size_t t, const at::Tensor& rows) {
    ExchangeCounts counts{.sent = std::vector<int64_t>(static_cast<size_t>(group().size())),
                          .received = std::vector<int64_t>(static_cast<size_t>(group().size()))};
    counts.sent[0] = rows.size(0);
    if (group().is_first())
      for (int64_t r = 0; r < group().size(); ++r) {
        const Part part = range(r, t);
        counts.received[static_cast<size_t>(r)] = part.end - part.begin;
      }
    return exchanged(rows, counts, all()[t].table.name);
  }

  std::vector<int64_t> whole_rows_;  // of each table
};

}  // namespace

std::unique_ptr<Tables> make_sharded_tables(Group& group, torch::nn::Module& module, WireType wire) {
  return std::make_unique<ShardedTables>(group, module, wire);
}

}  // namespace blt
