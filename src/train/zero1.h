// Data parallel, with the optimizer's state divided among the ranks.
#pragma once

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

 protected:
  Parts parts_of(int64_t rank) const override;
  bool is_divided() const override { return true; }
  Group::Pending send(const Buckets::Bucket& bucket, std::string_view what) override;
  std::vector<Gradients::Dense> collect(const std::vector<bool>& took_part) override;
  void put_together() override;

 private:
  Part range_of(int64_t rank, const Buckets::Bucket& bucket) const;
  at::Tensor own_range(const Buckets::Bucket& bucket) const;
};

}  // namespace blt
