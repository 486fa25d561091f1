#include "blt/train/parallel.h"

#include <utility>

#include "train/data_parallel.h"
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

std::unique_ptr<Parallel> make_parallel(const ParallelConfig& config, std::shared_ptr<Group> group,
                                        torch::nn::Module& module) {
  if (group->size() == 1) return std::make_unique<Alone>(std::move(group), module);
  copy_from_the_first(*group, module);
  if (config.sharding == Sharding::kZero1) return std::make_unique<Zero1>(config, std::move(group), module);
  return std::make_unique<DataParallel>(config, std::move(group), module);
}

}  // namespace blt
