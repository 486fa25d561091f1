// Every rank has the whole model and its share of the data; gradients are added up while the backward pass runs.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "blt/train/parallel.h"
#include "train/buckets.h"
#include "train/gradient_wire.h"
#include "train/tables.h"

namespace blt {

// The parameters of a module that take gradients, in its order, without n-gram tables. units: parts of the module, by whose places in the list they
// are known.
std::vector<Trained> dense_parameters(torch::nn::Module& module,
                                      const std::vector<std::shared_ptr<torch::nn::Module>>& units);

// What the micro-batches of a step add up travels with the last one. N-gram tables are a business of their own.
class DataParallel : public Parallel {
 public:
  // units: parts of `module`, the parameters of each of which have a bucket to themselves.
  DataParallel(const ParallelConfig& config, std::shared_ptr<Group> group, torch::nn::Module& module,
               std::unique_ptr<Tables> tables,
               const std::vector<std::shared_ptr<torch::nn::Module>>& units = {});
  ~DataParallel() override;

  // Dense parameters that are not there are moved by all ranks.
  Parts parts() const override { return tables_->parts(); }
  void backward(const at::Tensor& loss, bool last) override;
  Gradients finish_gradients() override;
  at::Tensor squared_norms(const Gradients& gradients, std::span<const std::string> modules) override;
  void step(Optimizer& optimizer, const Gradients& gradients, const ClipResult& clip, double factor) override;
  std::map<std::string, at::Tensor> own_parameters() const override;
  bool computes_together() const override { return tables_->computes_together(); }
  void make_whole() override { tables_->make_whole(); }

 protected:
  std::vector<at::Tensor> kept_gradients() const override;

  // Whether each rank has the dense gradients of its own parts alone.
  virtual bool is_divided() const { return false; }
  // Before the first backward pass of a step: the gradients of the last step are not needed any more.
  virtual void begin_step() {}
  // Whether a backward pass sends its gradients, or leaves them for the next one to add to.
  virtual bool sends(bool last) const { return last; }
  // Starts to add up a bucket over the ranks, in place where that suits.
  virtual Group::Pending send(size_t bucket, std::string_view what);
  // How many buckets may be on their way at a time.
  virtual size_t most_in_flight() const { return buckets_.all().size(); }
  // After all have come through: what this rank's optimizer moves of the parameters that have a gradient on some rank, each of which is there.
  virtual std::vector<Gradients::Dense> collect(const std::vector<bool>& took_part);
  // own_parameters() of the dense ones.
  virtual std::map<std::string, at::Tensor> own_dense() const;
  // The optimizer's step with the dense parameters.
  virtual void move(Optimizer& optimizer, const Gradients& gradients, const ClipResult& clip, double factor) {
    optimizer.step(gradients, clip, factor);
  }
  // After it: starts to give all ranks what each has moved.
  virtual void send_moved() {}

  const std::vector<Trained>& parameters() const { return parameters_; }  // dense ones
  const Buckets& buckets() const { return buckets_; }
  Buckets& buckets() { return buckets_; }
  GradientWire& wire() { return wire_; }
  bool overlaps() const { return overlap_; }  // parallel.overlap

 private:
  class Hook;
  void fill(size_t parameter);
  void receive(size_t most_left);  // waits until so many buckets are on their way

  std::vector<Trained> parameters_;
  std::unique_ptr<Tables> tables_;
  GradientWire wire_;
  Buckets buckets_;
  std::deque<Group::Pending> pending_;  // of buckets
  std::vector<bool> has_gradient_;  // parameters to which a backward pass of this step gave one, on this rank
  bool overlap_;
  bool sending_ = false;  // in a backward pass that sends while it goes on
  bool is_new_step_ = true;
};

}  // namespace blt
