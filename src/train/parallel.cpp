#include "blt/train/parallel.h"

#include <cstddef>
#include <map>
#include <stdexcept>
#include <utility>

#include "train/data_parallel.h"
#include "train/tables.h"
#include "train/zero1.h"
#include "train/zero2.h"
#include "train/zero3.h"

namespace blt {
namespace {

class Alone : public Parallel {
 public:
  Alone(std::shared_ptr<Group> group, torch::nn::Module& module)
      : Parallel(std::move(group), module), module_(module) {}

  void backward(const at::Tensor& loss, bool) override { loss.backward(); }
  Gradients finish_gradients() override { return take_gradients(module_); }

 private:
  torch::nn::Module& module_;
};

// Ranks that differ from the start would differ for ever, and nothing would show it.
void copy_from_the_first(Group& group, torch::nn::Module& module) {
  std::vector<Group::Pending> coming;
  for (auto& item : module.named_parameters())
    coming.push_back(group.broadcast(item.value().detach(), 0, item.key()));
  for (auto& item : module.named_buffers()) coming.push_back(group.broadcast(item.value(), 0, item.key()));
  for (const Group::Pending& one : coming) one->wait();
}

int64_t bytes_of(const std::vector<at::Tensor>& tensors) {
  std::map<const void*, size_t> storages;
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined()) storages[tensor.storage().unsafeGetStorageImpl()] = tensor.storage().nbytes();
  int64_t total = 0;
  for (const auto& [storage, bytes] : storages) total += static_cast<int64_t>(bytes);
  return total;
}

}  // namespace

int64_t ParallelConfig::bucket_bytes() const { return static_cast<int64_t>(bucket_mib * (1 << 20)); }

std::map<std::string, at::Tensor> Parallel::own_parameters() const {
  std::map<std::string, at::Tensor> result;
  for (const auto& item : module_.named_parameters())
    if (item.value().requires_grad()) result[item.key()] = item.value().detach();
  return result;
}

Parallel::Kept Parallel::kept() const {
  std::vector<at::Tensor> parameters = module_.parameters();
  for (const auto& item : own_parameters()) parameters.push_back(item.second);
  return {.parameters = bytes_of(parameters), .gradients = bytes_of(kept_gradients())};
}

std::vector<at::Tensor> Parallel::kept_gradients() const {
  std::vector<at::Tensor> result;
  for (const at::Tensor& parameter : module_.parameters()) result.push_back(parameter.grad());
  return result;
}

std::unique_ptr<Parallel> make_parallel(const ParallelConfig& config, std::shared_ptr<Group> group,
                                        torch::nn::Module& module) {
  if (group->is_alone()) return std::make_unique<Alone>(std::move(group), module);
  copy_from_the_first(*group, module);
  std::unique_ptr<Tables> tables =
      config.tables == TablePlacement::kSharded
          ? make_sharded_tables(*group, module, config.gradient_dtype)
          : make_replicated_tables(*group, module, config.gradient_dtype,
                                   /*is_divided=*/config.sharding != Sharding::kNone);
  switch (config.sharding) {
    case Sharding::kNone:
      return std::make_unique<DataParallel>(config, std::move(group), module, std::move(tables));
    case Sharding::kZero1:
      return std::make_unique<Zero1>(config, std::move(group), module, std::move(tables));
    case Sharding::kZero2:
      return std::make_unique<Zero2>(config, std::move(group), module, std::move(tables));
    case Sharding::kZero3:
      return std::make_unique<Zero3>(config, std::move(group), module, std::move(tables));
  }
  throw std::logic_error("a sharding that there is not");
}

}  // namespace blt
