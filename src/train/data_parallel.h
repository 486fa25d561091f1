// Every rank has the whole model and its share of the data; gradients are added up while the backward pass runs.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <string_view>
#include <vector>

#include "blt/model/ngram_embedding.h"
#include "blt/train/parallel.h"
#include "train/buckets.h"

namespace blt {

// What the micro-batches of a step add up travels with the last one. Of n-gram tables the touched rows travel, and are
// added up in the order of the ranks.
class DataParallel : public Parallel {
 public:
  // units: parts of `module`, the parameters of each of which have a bucket to themselves.
  DataParallel(const ParallelConfig& config, std::shared_ptr<Group> group, torch::nn::Module& module,
               const std::vector<std::shared_ptr<torch::nn::Module>>& units = {});
  ~DataParallel() override;

  void backward(const at::Tensor& loss, bool last) override;
  Gradients finish_gradients() override;

 protected:
  struct Table {
    Trained table;
    NgramEmbeddingImpl* embedding = nullptr;
  };

  std::vector<at::Tensor> kept_gradients() const override;

  // Before the first backward pass of a step: the gradients of the last step are not needed any more.
  virtual void begin_step() {}
  // Whether a backward pass sends its gradients, or leaves them for the next one to add to.
  virtual bool sends(bool last) const { return last; }
  // Starts to add up a bucket over the ranks, in place where that suits.
  virtual Group::Pending send(size_t bucket, std::string_view what);
  // How many buckets may be on their way at a time.
  virtual size_t most_in_flight() const { return buckets_.all().size(); }
  // After all have come through: what this rank's optimizer moves of the parameters that have a gradient on some rank.
  virtual Gradients collect(const std::vector<bool>& took_part, std::vector<RowGradient> rows);

  const std::vector<Trained>& parameters() const { return parameters_; }  // dense ones
  const std::vector<Table>& tables() const { return tables_; }
  const Buckets& buckets() const { return buckets_; }
  Buckets& buckets() { return buckets_; }

 private:
  class Hook;
  void fill(size_t parameter);
  void receive(size_t most_left);  // waits until so many buckets are on their way
  RowGradient exchange_rows(Table& table);

  std::vector<Trained> parameters_;
  std::vector<Table> tables_;
  Buckets buckets_;
  std::deque<Group::Pending> pending_;  // of buckets
  std::vector<bool> has_gradient_;  // parameters to which a backward pass of this step gave one, on this rank
  bool sending_ = false;            // in a backward pass that sends
  bool is_new_step_ = true;
};

}  // namespace blt
