// ZeRO-2, with the parameters of the latent transformer's layers divided among the ranks as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "blt/model/latent_transformer.h"
#include "train/zero2.h"

namespace blt {

// The layers of a module's latent transformer; none where it has no such part.
std::vector<std::shared_ptr<torch::nn::Module>> divided_layers(torch::nn::Module& module);

// Each layer is a unit with a bucket of its own, and a rank keeps its range of that. Before the layer's forward and again before its backward
// all ranks' ranges are put together; afterwards the memory goes back. With parallel.overlap the next layer's parameters travel while one
// computes. All ranks compute the same graph in a step: gradients and parameters travel in one order.
//
// The parameters' tensors stay the same, and so does what autograd has saved of them: they are views of one tensor per layer, whose storage is
// emptied and filled again.
//
// Source: Rajbhandari et al., ZeRO (arXiv:1910.02054), section 5.3; Zhao et al., PyTorch FSDP (arXiv:2304.11277), section 4.
class Zero3 : public Zero2 {
 public:
  Zero3(const ParallelConfig& config, std::shared_ptr<Group> group, torch::nn::Module& module,
        std::unique_ptr<Tables> tables);
  ~Zero3() override;

  void backward(const at::Tensor& loss, bool last) override;
  bool computes_together() const override { return is_divided_ || Zero2::computes_together(); }
  void make_whole() override;

 protected:
  at::Tensor place_of(size_t parameter, const Part& part) const override;
  std::vector<Gradients::Dense> collect(const std::vector<bool>& took_part) override;

 private:
  class Watch;
  struct Layer {
    const Buckets::Bucket* bucket = nullptr;  // null where all of it is frozen: it stays as it is
    at::Tensor whole = {};                    // [size]: what the parameters are views of
    at::Tensor own = {};                      // [size / ranks]
    Group::Pending coming = {};               // all ranks' `own` into `whole`
    bool is_here = false;                     // whole
  };
  void divide();
  void fetch(size_t layer);    // starts to gather its parameters; nothing where they are here or coming
  void gather(size_t layer);   // waits for them
  void release(size_t layer);  // their memory goes back
  void before_backward(size_t layer);

  std::shared_ptr<LatentTransformerImpl> latent_transformer_;  // null: there is none
  std::unique_ptr<Watch> watch_;
  std::vector<Layer> layers_;
  bool is_divided_ = false;
};

}  // namespace blt
