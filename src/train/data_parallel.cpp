#include "train/data_parallel.h"

#include <ATen/ops/zeros.h>
#include <c10/core/ScalarType.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

namespace blt {

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
                           torch::nn::Module& module, std::unique_ptr<Tables> tables,
                           const std::vector<std::shared_ptr<torch::nn::Module>>& units)
    : Parallel(std::move(group), module),
      parameters_(dense_parameters(module, units)),
      tables_(std::move(tables)),
      wire_(this->group(), config.gradient_dtype),
      buckets_(parameters_, config.bucket_bytes(), this->group().size(),
               [this](size_t bucket) {
                 const size_t count = buckets_.all().size();
                 receive(most_in_flight() - 1);
                 pending_.push_back(send(bucket, fmt::format("gradients, {} of {}", bucket + 1, count)));
               }),
      has_gradient_(parameters_.size(), false),
      overlap_(config.overlap) {
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
  const bool sends_this = sends(last);
  if (sends_this) buckets_.reset();
  sending_ = sends_this && overlap_;
  loss.backward();
  sending_ = false;
  // A parameter may have a gradient on some ranks only, or in earlier micro-batches only.
  if (sends_this)
    for (size_t i = 0; i < parameters_.size(); ++i)
      if (!buckets_.is_filled(i)) fill(i);
}

void DataParallel::fill(size_t parameter) {
  at::Tensor& gradient = parameters_[parameter].parameter.mutable_grad();
  if (gradient.defined()) has_gradient_[parameter] = true;
  buckets_.fill(parameter, std::exchange(gradient, {}));
}

Group::Pending DataParallel::send(size_t bucket, std::string_view what) {
  return wire_.sum(buckets_.all()[bucket].values, what);
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
  Gradients result;
  result.rows = tables_->finish_gradients();
  receive(0);
  known->wait();
  is_new_step_ = true;
  std::vector<bool> took_part;
  for (size_t i = 0; i < parameters_.size(); ++i) took_part.push_back(ranks_with_gradient[i] > 0);
  result.dense = collect(took_part);
  return result;
}

std::vector<at::Tensor> DataParallel::kept_gradients() const {
  std::vector<at::Tensor> result = Parallel::kept_gradients();
  for (const Buckets::Bucket& bucket : buckets_.all()) result.push_back(bucket.values);
  return result;
}

std::vector<Gradients::Dense> DataParallel::collect(const std::vector<bool>& took_part) {
  std::vector<Gradients::Dense> result;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!took_part[i]) continue;
    const Buckets::Piece& piece = buckets_.piece(i);
    const at::Tensor& values = buckets_.all()[buckets_.bucket_of(i)].values;
    const at::Tensor& parameter = parameters_[i].parameter;
    result.push_back({parameters_[i].name, parameter,
                      values.narrow(0, piece.offset, piece.numel).view(parameter.sizes())});
  }
  return result;
}

at::Tensor DataParallel::squared_norms(const Gradients& gradients, std::span<const std::string> modules) {
  if (!is_divided() && !tables_->is_divided()) return blt::squared_norms(gradients, modules);
  Gradients divided, same;  // on all ranks
  (is_divided() ? divided : same).dense = gradients.dense;
  (tables_->is_divided() ? divided : same).rows = gradients.rows;
  const at::Tensor squares = blt::squared_norms(divided, modules);
  group().sum(squares, "gradient norms")->wait();
  return squares + blt::squared_norms(same, modules);
}

std::map<std::string, at::Tensor> DataParallel::own_parameters() const {
  std::map<std::string, at::Tensor> result = own_dense();
  result.merge(tables_->own_parameters());
  return result;
}

std::map<std::string, at::Tensor> DataParallel::own_dense() const {
  std::map<std::string, at::Tensor> result;
  for (const Trained& item : parameters_) result[item.name] = item.parameter.detach();
  return result;
}

void DataParallel::step(Optimizer& optimizer, const Gradients& gradients, const ClipResult& clip,
                        double factor) {
  move(optimizer, {.dense = gradients.dense, .rows = {}}, clip, factor);
  send_moved();
  // Meanwhile:
  optimizer.step({.dense = {}, .rows = gradients.rows}, clip, factor);
  std::vector<Group::Pending> tables_come;
  tables_->send_moved(tables_come, /*all_rows=*/optimizer.moves_all_rows());
  for (const Group::Pending& one : tables_come) one->wait();
}

}  // namespace blt
