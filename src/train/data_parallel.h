// Every rank has the whole model and its share of the data; gradients are added up while the backward pass runs.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "blt/model/ngram_embedding.h"
#include "blt/train/parallel.h"
#include "train/buckets.h"

namespace blt {

// Only the last micro-batch of a step sends: what those before it added up goes with it. Of n-gram tables the touched rows travel, and are
// added up in the order of the ranks.
class DataParallel : public Parallel {
 public:
  DataParallel(const ParallelConfig& config, std::shared_ptr<Group> group, torch::nn::Module& module);
  ~DataParallel() override;

  void backward(const at::Tensor& loss, bool last) override;
  Gradients finish_gradients() override;

 protected:
  struct Table {
    Trained table;
    NgramEmbeddingImpl* embedding = nullptr;
  };

  // Starts to add up a bucket over the ranks.
  virtual Group::Pending send(const Buckets::Bucket& bucket, std::string_view what);
  // After all have come through: what this rank's optimizer moves of the parameters that have a gradient on some rank.
  virtual Gradients collect(const std::vector<bool>& took_part, std::vector<RowGradient> rows);

  const std::vector<Trained>& parameters() const { return parameters_; }  // dense ones
  const std::vector<Table>& tables() const { return tables_; }
  const Buckets& buckets() const { return buckets_; }

 private:
  class Hook;
  RowGradient exchange_rows(Table& table);

  std::vector<Trained> parameters_;
  std::vector<Table> tables_;
  Buckets buckets_;
  std::vector<Group::Pending> pending_;  // of buckets
  bool sending_ = false;                 // in the last backward pass of a step
};

}  // namespace blt
