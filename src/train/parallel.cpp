#include "blt/train/parallel.h"

#include <utility>

#include "train/data_parallel.h"
#include "train/tables.h"
#include "train/zero1.h"

namespace blt {
namespace {

class Alone : public Parallel {
 public:
  Alone(std::shared_ptr<Group> group, torch::nn::Module& module)
      : Parallel(std::move(group)), module_(module) {}

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

}  // namespace

OptimizerState Parallel::whole_state(const AdamW& optimizer) {
  if (!group().is_first()) return {};
  OptimizerState result = optimizer.state();
  for (auto& [name, tensor] : result) tensor = tensor.clone();
  return result;
}

void Parallel::with_whole_parameters(const std::function<void()>& body) {
  if (group().is_first()) body();
}

std::unique_ptr<Parallel> make_parallel(const ParallelConfig& config, std::shared_ptr<Group> group,
                                        torch::nn::Module& module) {
  if (group->size() == 1) return std::make_unique<Alone>(std::move(group), module);
  copy_from_the_first(*group, module);
  const bool is_zero1 = config.sharding == Sharding::kZero1;
  std::unique_ptr<Tables> tables =
      config.tables == TablePlacement::kSharded
          ? make_sharded_tables(*group, module, config.gradient_dtype)
          : make_replicated_tables(*group, module, config.gradient_dtype, is_zero1);
  if (is_zero1) return std::make_unique<Zero1>(config, std::move(group), module, std::move(tables));
  return std::make_unique<DataParallel>(config, std::move(group), module, std::move(tables));
}

}  // namespace blt
