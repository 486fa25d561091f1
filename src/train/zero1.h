// Data parallel, with the optimizer's state divided among the ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "train/data_parallel.h"

namespace blt {

// Every bucket of gradients, laid end to end, is cut into as many equal ranges as there are ranks. A rank gets the sum of its range alone,
// moves the parameters there, and all ranges are put together again: what travels is as much as in data parallel.
//
// Source: Rajbhandari et al., ZeRO (arXiv:1910.02054), section 5.1.
class Zero1 : public DataParallel {
 public:
  using DataParallel::DataParallel;

  Parts parts() const override;

 protected:
  bool is_divided() const override { return true; }
  Group::Pending send(size_t bucket, std::string_view what) override;
  std::vector<Gradients::Dense> collect(const std::vector<bool>& took_part) override;
  std::map<std::string, at::Tensor> own_dense() const override;
  void put_together() override;

  // What came through of a bucket: this rank's range.
  virtual at::Tensor sums_of(size_t bucket) const;
  // Where this rank's part of a parameter is.
  virtual at::Tensor place_of(size_t parameter, const Part& part) const;
  // Whether all ranks have a bucket's parameters whole after a step.
  virtual bool is_whole(const Buckets::Bucket&) const { return true; }

  // Of a rank, in a bucket.
  Part range_of(int64_t rank, const Buckets::Bucket& bucket) const;
  // Of that, in a parameter of the bucket.
  Part part_of(int64_t rank, const Buckets::Piece& piece, const Buckets::Bucket& bucket) const;
};

}  // namespace blt
