// Data parallel, with the optimizer's state divided among the ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
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
  using DataParallel::DataParallel;

  Parts parts() const override { return parts_of(group().rank()); }
  at::Tensor squared_norms(const Gradients& gradients, std::span<const std::string> modules) override;
  void step(Optimizer& optimizer, const Gradients& gradients, const ClipResult& clip, double factor) override;
  std::vector<std::pair<std::string, at::Tensor>> own_parameters() override;

 protected:
  Group::Pending send(size_t bucket, std::string_view what) override;
  // What came through of a bucket: this rank's range.
  virtual at::Tensor sums_of(size_t bucket) const;
  // Where this rank's part of a parameter is.
  virtual at::Tensor place_of(size_t parameter, const Part& part);
  // Whether all ranks have a bucket's parameters whole after a step.
  virtual bool is_whole(const Buckets::Bucket&) const { return true; }
  Gradients collect(const std::vector<bool>& took_part, std::vector<RowGradient> rows) override;

  // Of a rank, in a bucket.
  Part range_of(int64_t rank, const Buckets::Bucket& bucket) const;

 private:
  Parts parts_of(int64_t rank) const;
  Part rows_of(int64_t rank, const Table& table) const;
  void put_together();
};

}  // namespace blt
