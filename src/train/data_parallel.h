// Every rank has the whole model and its share of the data; gradients are added up while the backward pass runs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "blt/train/parallel.h"
#include "train/buckets.h"
#include "train/gradient_wire.h"
#include "train/tables.h"

namespace blt {

// Only the last micro-batch of a step sends: what those before it added up goes with it. N-gram tables are a business of
// their own.
class DataParallel : public Parallel {
 public:
  DataParallel(const ParallelConfig& config, std::shared_ptr<Group> group, torch::nn::Module& module,
               std::unique_ptr<Tables> tables);
  ~DataParallel() override;

  Parts parts() const override { return parts_of(group().rank()); }
  void backward(const at::Tensor& loss, bool last) override;
  Gradients finish_gradients() override;
  at::Tensor norm(const Gradients& gradients) override;
  void step(AdamW& optimizer, const Gradients& gradients, const ClipResult& clip, double factor) override;
  void finish_forwards() override { tables_->finish_forwards(); }
  void with_whole_parameters(const std::function<void()>& body) override { tables_->with_whole(body); }
  OptimizerState whole_state(const AdamW& optimizer) override;

 protected:
  // What the optimizer of `rank` moves; dense parameters that are not there are moved by all ranks.
  virtual Parts parts_of(int64_t rank) const { return tables_->parts_of(rank); }
  // Whether each rank has the dense gradients of its own parts alone.
  virtual bool is_divided() const { return false; }
  // Starts to add up a bucket over the ranks.
  virtual Group::Pending send(const Buckets::Bucket& bucket, std::string_view what);
  // After all have come through: what this rank's optimizer moves of the parameters that have a gradient on some rank.
  virtual std::vector<Gradients::Dense> collect(const std::vector<bool>& took_part);
  // After the optimizer's step: makes the dense parameters whole.
  virtual void put_together() {}

  const std::vector<Trained>& parameters() const { return parameters_; }  // dense ones
  const Buckets& buckets() const { return buckets_; }
  GradientWire& wire() { return wire_; }

 private:
  class Hook;

  std::vector<Trained> parameters_;
  std::unique_ptr<Tables> tables_;
  GradientWire wire_;
  Buckets buckets_;
  std::vector<Group::Pending> pending_;  // of buckets
  bool overlap_;
  bool sending_ = false;  // in the last backward pass of a step
};

}  // namespace blt
