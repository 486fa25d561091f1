// Data parallel, with the optimizer's state divided among the ranks.
#pragma once

#include <memory>
#include <vector>

#include "train/data_parallel.h"

namespace blt {

// Every bucket of gradients, laid end to end, is cut into as many equal ranges as there are ranks. A rank gets the sum of its range alone,
// moves the parameters there, and all ranges are put together again: what travels is as much as in data parallel. Of an n-gram table a rank
// moves a range of rows, and after the step the whole table travels.
//
// Source: Rajbhandari et al., ZeRO (arXiv:1910.02054), section 5.1.
class Zero1 : public DataParallel {
 public:
  Zero1(const ParallelConfig& config, std::shared_ptr<Group> group, torch::nn::Module& module);

  Parts parts() const override { return parts_of(group().rank()); }
  at::Tensor norm(const Gradients& gradients) override;
  void step(AdamW& optimizer, const Gradients& gradients, const ClipResult& clip, double factor) override;

 protected:
  Group::Pending send(const Buckets::Bucket& bucket, std::string_view what) override;
  Gradients collect(const std::vector<bool>& took_part, std::vector<RowGradient> rows) override;

 private:
  Parts parts_of(int64_t rank) const;
  Part range_of(int64_t rank, const Buckets::Bucket& bucket) const;
  Part rows_of(int64_t rank, const Table& table) const;
  at::Tensor own_range(const Buckets::Bucket& bucket) const;
  void put_together();
};

}  // namespace blt
