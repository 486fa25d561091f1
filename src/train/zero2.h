// ZeRO-1, with the gradients divided among the ranks as well.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "train/zero1.h"

namespace blt {

// Every micro-batch sends its gradients, and a rank adds up the sums of its own ranges alone. A bucket is there from its first gradient until
// it has come through; a backward pass that is faster than the network waits, so that there are few of them.
//
// Source: Rajbhandari et al., ZeRO (arXiv:1910.02054), section 5.2.
class Zero2 : public Zero1 {
 public:
  using Zero1::Zero1;

 protected:
  std::vector<at::Tensor> kept_gradients() const override;
  void begin_step() override { sums_.assign(buckets().all().size(), {}); }
  bool sends(bool /*last*/) const override { return true; }
  size_t most_in_flight() const override { return 2; }
  Group::Pending send(size_t bucket, std::string_view what) override;
  at::Tensor sums_of(size_t bucket) const override { return sums_[bucket]; }

 private:
  class Reduction;
  std::vector<at::Tensor>
      sums_;  // of each bucket's range of this rank, over the micro-batches that have come through
};

}  // namespace blt
