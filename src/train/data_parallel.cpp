#include "train/data_parallel.h"

#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

namespace blt {
namespace {

// The trainable parameters in the order of the module, without n-gram tables.
std::vector<Trained> dense_parameters(torch::nn::Module& module) {
  std::vector<Trained> result;
  for (auto& item : module.named_parameters())
    if (item.value().requires_grad() && table_owner(module, item.value()) == nullptr)
      result.push_back({item.key(), item.value()});
  return result;
}

}  // namespace

// A gradient is complete: it leaves the parameter and goes into its bucket.
class DataParallel::Hook : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(DataParallel& owner, size_t parameter) : owner_(owner), parameter_(parameter) {}
  void operator()(const torch::autograd::Variable& parameter) override {
    if (!owner_.sending_) return;
    owner_.buckets_.fill(parameter_, parameter.grad());
    parameter.mutable_grad() = at::Tensor();
  }

 private:
  DataParallel& owner_;
  size_t parameter_;
};

DataParallel::DataParallel(const ParallelConfig& config, std::shared_ptr<Group> group,
                           torch::nn::Module& module, std::unique_ptr<Tables> tables)
    : Parallel(std::move(group)),
      parameters_(dense_parameters(module)),
      tables_(std::move(tables)),
      wire_(this->group(), config.gradient_dtype),
      buckets_(parameters_, static_cast<int64_t>(config.bucket_mib * (1 << 20)), this->group().size(),
               [this](size_t bucket) {
                 const size_t count = buckets_.all().size();
                 pending_.push_back(
                     send(buckets_.all()[bucket], fmt::format("gradients, {} of {}", bucket + 1, count)));
               }),
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
  if (last) {
    buckets_.reset();
    pending_.clear();
  }
  sending_ = last && overlap_;
  loss.backward();
  sending_ = false;
}

Group::Pending DataParallel::send(const Buckets::Bucket& bucket, std::string_view what) {
  return wire_.sum(bucket.values, what);
}

Gradients DataParallel::finish_gradients() {
  // A parameter may have a gradient on some ranks only, or in earlier micro-batches only; without one on any rank it does not move.
  const auto count = static_cast<int64_t>(parameters_.size());
  const at::Tensor ranks_with = at::zeros({std::max<int64_t>(count, 1)}, at::kInt);
  auto* ranks_with_gradient = ranks_with.data_ptr<int32_t>();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& parameter = parameters_[i].parameter;
    const bool filled = buckets_.is_filled(i);
    ranks_with_gradient[i] = filled || parameter.grad().defined() ? 1 : 0;
    if (filled) continue;
    buckets_.fill(i, parameter.grad());
    parameter.mutable_grad() = at::Tensor();
  }
  const Group::Pending known = group().sum(ranks_with, "which parameters have gradients");
  Gradients result;
  result.rows = tables_->finish_gradients();
  for (const Group::Pending& bucket : pending_) bucket->wait();
  known->wait();
  std::vector<bool> took_part;
  for (size_t i = 0; i < parameters_.size(); ++i) took_part.push_back(ranks_with_gradient[i] > 0);
  result.dense = collect(took_part);
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

at::Tensor DataParallel::norm(const Gradients& gradients) {
  if (!is_divided() && !tables_->is_divided()) return blt::norm(gradients);
  Gradients divided, same;  // on all ranks
  (is_divided() ? divided : same).dense = gradients.dense;
  (tables_->is_divided() ? divided : same).rows = gradients.rows;
  const at::Tensor squared = blt::norm(divided).to(at::kDouble).square();
  group().sum(squared, "gradient norm")->wait();
  return (squared + blt::norm(same).to(at::kDouble).square()).sqrt().to(at::kFloat);
}

void DataParallel::step(AdamW& optimizer, const Gradients& gradients, const ClipResult& clip, double factor) {
  optimizer.step(gradients, clip, factor);
  std::vector<Group::Pending> tables_come;
  tables_->send_moved(tables_come);
  put_together();
  for (const Group::Pending& one : tables_come) one->wait();
}

OptimizerState DataParallel::whole_state(const AdamW& optimizer) {
  const at::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> own;
  for (const auto& [name, tensor] : optimizer.state()) own[name] = tensor;
  std::vector<Parts> parts;
  for (int64_t r = 0; r < group().size(); ++r) parts.push_back(parts_of(r));
  std::map<std::string, at::Tensor> all;  // sorted by name
  for (const Trained& item : parameters_) all[item.name] = item.parameter;
  for (const Tables::Table& table : tables_->all()) all[table.table.name] = table.table.parameter;

  // A rank that moves nothing of a parameter does not know whether the others have state of it.
  std::vector<int64_t> ranks_with;
  for (const auto& [name, parameter] : all)
    for (const char* suffix : kStateSuffixes) ranks_with.push_back(own.count(name + suffix) != 0 ? 1 : 0);
  ranks_with = sum_of_counts(group(), std::move(ranks_with), "which parameters have state");

  OptimizerState state;
  size_t i = 0;
  for (const auto& [name, parameter] : all)
    for (const char* suffix : kStateSuffixes) {
      if (ranks_with[i++] == 0) continue;
      const std::string key = name + suffix;
      if (parts[0].count(name) == 0) {  // all have it
        if (group().is_first()) state.emplace_back(key, own.at(key).clone());
        continue;
      }
      const bool is_step = key.ends_with(".step");
      const at::IntArrayRef of_part = parts[0].at(name).whole;
      const at::IntArrayRef sizes = of_part.empty() ? parameter.sizes() : of_part;
      at::Tensor whole = at::zeros(is_step ? at::IntArrayRef{} : sizes,
                                   parameter.options().dtype(at::kFloat).requires_grad(false));
      for (int64_t r = 0; r < group().size(); ++r) {
        const Part& part = parts[static_cast<size_t>(r)].at(name);
        if (part.begin == part.end) continue;
        const at::Tensor target = is_step ? whole : whole.view({-1}).slice(0, part.begin, part.end);
        if (r == group().rank()) target.copy_(own.at(key).view_as(target));
        group().broadcast(target, r, key)->wait();
        if (is_step) break;  // all that move some of it have the same
      }
      if (group().is_first()) state.emplace_back(key, std::move(whole));
    }
  return state;
}

}  // namespace blt
