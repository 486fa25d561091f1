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
#include "train/moved_parameters.h"

namespace blt {

// Every bucket of gradients, laid end to end, is cut into as many equal ranges as there are ranks. A rank gets the sum of its range alone,
// moves the parameters there, and all ranges are put together again while the next forward pass computes (train/moved_parameters.h): what
// travels is as much as in data parallel. Where a rule moves matrices as a whole, those that the ranges cut travel besides
// (train/divided_matrices.h).
//
// Source: Rajbhandari et al., ZeRO (arXiv:1910.02054), section 5.1.
class Zero1 : public DataParallel {
 public:
  using DataParallel::DataParallel;

  Parts parts() const override;
  bool computes_together() const override { return moved_.is_waiting() || DataParallel::computes_together(); }
  void make_whole() override {
    moved_.finish();
    DataParallel::make_whole();
  }

 protected:
  bool is_divided() const override { return true; }
  Group::Pending send(size_t bucket, std::string_view what) override;
  std::vector<Gradients::Dense> collect(const std::vector<bool>& took_part) override;
  std::map<std::string, at::Tensor> own_dense() const override;
  void move(Optimizer& optimizer, const Gradients& gradients, const ClipResult& clip, double factor) override;
  void send_moved() override { moved_.send(); }

  // What came through of a bucket: this rank's range.
  virtual at::Tensor sums_of(size_t bucket) const;
  // Where this rank's part of a parameter is.
  virtual at::Tensor place_of(size_t parameter, const Part& part) const;

  // This rank's.
  Part own_range(const Buckets::Bucket& bucket) const { return buckets().range_of(group().rank(), bucket); }
  Part own_part(size_t parameter) const { return buckets().part_of(group().rank(), parameter); }

 private:
  DividedMatrices matrices_{group(), division_of(parameters(), buckets())};
  MovedParameters moved_{group(), module(), parameters(), buckets(), overlaps()};
};

}  // namespace blt
