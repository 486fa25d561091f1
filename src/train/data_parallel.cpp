#include "train/data_parallel.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

namespace blt {
namespace {

// The n-gram embedding whose table this is; null where it is none.
NgramEmbeddingImpl* table_owner(torch::nn::Module& module, const at::Tensor& parameter) {
  for (const auto& child : module.modules()) {
    auto* embedding = child->as<NgramEmbeddingImpl>();
    if (embedding != nullptr && embedding->ngram_table.is_same(parameter)) return embedding;
  }
  return nullptr;
}

// The trainable parameters in the order of the module, without n-gram tables.
std::vector<Trained> dense_parameters(torch::nn::Module& module,
                                      const std::vector<std::shared_ptr<torch::nn::Module>>& units) {
  const auto unit_of = [&](const at::Tensor& parameter) -> int64_t {
    for (size_t u = 0; u < units.size(); ++u)
      for (const at::Tensor& own : units[u]->parameters())
        if (own.is_same(parameter)) return static_cast<int64_t>(u);
    return -1;
  };
  std::vector<Trained> result;
  for (auto& item : module.named_parameters())
    if (item.value().requires_grad() && table_owner(module, item.value()) == nullptr)
      result.push_back({item.key(), item.value(), unit_of(item.value())});
  return result;
}

}  // namespace

// A gradient is complete: it leaves the parameter and goes into its bucket.
class DataParallel::Hook : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(DataParallel& owner, size_t parameter) : owner_(owner), parameter_(parameter) {}
  void operator()(const torch::autograd::Variable&) override {
    if (owner_.sending_) owner_.fill(parameter_);
  }

 private:
  DataParallel& owner_;
  size_t parameter_;
};

DataParallel::DataParallel(const ParallelConfig& config, std::shared_ptr<Group> group,
                           torch::nn::Module& module,
                           const std::vector<std::shared_ptr<torch::nn::Module>>& units)
    : Parallel(std::move(group), module),
      parameters_(dense_parameters(module, units)),
      buckets_(parameters_, static_cast<int64_t>(config.bucket_mib * (1 << 20)), this->group().size(),
               [this](size_t bucket) {
                 const size_t count = buckets_.all().size();
                 receive(most_in_flight() - 1);
                 pending_.push_back(send(bucket, fmt::format("gradients, {} of {}", bucket + 1, count)));
               }),
      has_gradient_(parameters_.size(), false) {
  for (auto& item : module.named_parameters())
    if (NgramEmbeddingImpl* embedding = table_owner(module, item.value());
        embedding != nullptr && item.value().requires_grad())
      tables_.push_back({.table = {item.key(), item.value()}, .embedding = embedding});
  for (size_t i = 0; i < parameters_.size(); ++i)
    torch::autograd::impl::set_post_acc_grad_hooks(parameters_[i].parameter,
                                                   std::make_unique<Hook>(*this, i));
}

DataParallel::~DataParallel() {
  for (const Trained& item : parameters_)
    torch::autograd::impl::set_post_acc_grad_hooks(item.parameter, nullptr);
}

void DataParallel::backward(const at::Tensor& loss, bool last) {
  if (is_new_step_) {
    begin_step();
    has_gradient_.assign(parameters_.size(), false);
    is_new_step_ = false;
  }
  sending_ = sends(last);
  if (sending_) buckets_.reset();
  loss.backward();
  // A parameter may have a gradient on some ranks only, or in earlier micro-batches only.
  if (sending_)
    for (size_t i = 0; i < parameters_.size(); ++i)
      if (!buckets_.is_filled(i)) fill(i);
  sending_ = false;
}

void DataParallel::fill(size_t parameter) {
  at::Tensor& gradient = parameters_[parameter].parameter.mutable_grad();
  if (gradient.defined()) has_gradient_[parameter] = true;
  buckets_.fill(parameter, std::exchange(gradient, {}));
}

Group::Pending DataParallel::send(size_t bucket, std::string_view what) {
  return group().sum(buckets_.all()[bucket].values, what);
}

void DataParallel::receive(size_t most_left) {
  while (pending_.size() > most_left) {
    pending_.front()->wait();
    pending_.pop_front();
  }
}

Gradients DataParallel::finish_gradients() {
  // Without a gradient on any rank a parameter does not move.
  const at::Tensor ranks_with = at::zeros({std::max<int64_t>(1, std::ssize(parameters_))}, at::kInt);
  auto* ranks_with_gradient = ranks_with.data_ptr<int32_t>();
  for (size_t i = 0; i < parameters_.size(); ++i) ranks_with_gradient[i] = has_gradient_[i] ? 1 : 0;
  const Group::Pending known = group().sum(ranks_with, "which parameters have gradients");
  std::vector<RowGradient> rows;
  for (Table& table : tables_) rows.push_back(exchange_rows(table));
  receive(0);
  known->wait();
  is_new_step_ = true;
  std::vector<bool> took_part;
  for (size_t i = 0; i < parameters_.size(); ++i) took_part.push_back(ranks_with_gradient[i] > 0);
  return collect(took_part, std::move(rows));
}

std::vector<at::Tensor> DataParallel::kept_gradients() const {
  std::vector<at::Tensor> result = Parallel::kept_gradients();
  for (const Buckets::Bucket& bucket : buckets_.all()) result.push_back(bucket.values);
  return result;
}

Gradients DataParallel::collect(const std::vector<bool>& took_part, std::vector<RowGradient> rows) {
  Gradients result;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!took_part[i]) continue;
    const Buckets::Piece& piece = buckets_.piece(i);
    const at::Tensor& values = buckets_.all()[buckets_.bucket_of(i)].values;
    const at::Tensor& parameter = parameters_[i].parameter;
    result.dense.push_back({parameters_[i].name, parameter,
                            values.narrow(0, piece.offset, piece.numel).view(parameter.sizes())});
  }
  for (size_t t = 0; t < tables_.size(); ++t)
    if (rows[t].capacity > 0)
      result.rows.push_back({tables_[t].table.name, tables_[t].table.parameter, std::move(rows[t])});
  return result;
}

RowGradient DataParallel::exchange_rows(Table& table) {
  const RowGradient own = ops::merge(table.embedding->row_gradients);
  table.embedding->row_gradients.clear();
  const int64_t ranks = group().size();
  std::vector<int64_t> counts(static_cast<size_t>(ranks));
  counts[static_cast<size_t>(group().rank())] = own.capacity;
  counts = sum_of_counts(group(), std::move(counts), "numbers of table rows");
  const int64_t longest = *std::max_element(counts.begin(), counts.end());
  if (longest == 0) return {};

  const int64_t width = table.table.parameter.size(1);
  const at::TensorOptions options = table.table.parameter.options().requires_grad(false);
  const at::Tensor ids = at::zeros({longest}, options.dtype(at::kInt));
  const at::Tensor values = at::zeros({longest, width}, options.dtype(gradient_type(table.table.parameter)));
  if (own.capacity > 0) {
    ids.narrow(0, 0, own.capacity).copy_(own.ids);
    values.narrow(0, 0, own.capacity).copy_(own.values);
  }
  const at::Tensor all_ids = at::empty({ranks * longest}, ids.options());
  const at::Tensor all_values = at::empty({ranks * longest, width}, values.options());
  const Group::Pending ids_come = group().all_gather(all_ids, ids, "ids of table rows");
  group().all_gather(all_values, values, "gradients of table rows")->wait();
  ids_come->wait();
  std::vector<RowGradient> everybodys;
  for (int64_t r = 0; r < ranks; ++r) {
    const int64_t rows = counts[static_cast<size_t>(r)];
    if (rows == 0) continue;
    everybodys.push_back({.ids = all_ids.narrow(0, r * longest, rows),
                          .values = all_values.narrow(0, r * longest, rows),
                          .count = at::full({}, rows, ids.options()),
                          .capacity = rows});
  }
  return ops::merge(everybodys);
}

}  // namespace blt
