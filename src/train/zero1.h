// Data parallel, with the optimizer's state divided among the ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "train/data_parallel.h"
#include "train/divided_matrices.h"

namespace blt {

// Every bucket of gradients, laid end to end, is cut into as many equal ranges as there are ranks. A rank gets the sum of its range alone,
// moves the parameters there, and all ranges are put together again: what travels is as much as in data parallel. Where a rule moves matrices
// as a whole, those that the ranges cut travel besides (train/divided_matrices.h).
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
  void move(Optimizer& optimizer, const Gradients& gradients, const ClipResult& clip,
            double factor) const override {
    optimizer.step(gradients, clip, factor, matrices_);
  }
  void put_together() override;

  // What came through of a bucket: this rank's range.
  virtual at::Tensor sums_of(size_t bucket) const;
  // Where this rank's part of a parameter is.
  virtual at::Tensor place_of(size_t parameter, const Part& part) const;
  // Whether all ranks have a bucket's parameters whole after a step.
  virtual bool is_whole(const Buckets::Bucket&) const { return true; }

  // This rank's.
  Part own_range(const Buckets::Bucket& bucket) const { return buckets().range_of(group().rank(), bucket); }
  Part own_part(size_t parameter) const { return buckets().part_of(group().rank(), parameter); }

 private:
  DividedMatrices matrices_{group(), division_of(parameters(), buckets())};
};

}  // namespace blt
