#include "train/zero2.h"

#include <ATen/ops/empty.h>

#include <memory>
#include <utility>

namespace blt {

// One micro-batch's gradients in a bucket on their way.
class Zero2::Reduction : public Group::Transfer {
 public:
  Reduction(Zero2& owner, size_t bucket, at::Tensor sums, at::Tensor values, Group::Pending transfer)
      : owner_(owner),
        bucket_(bucket),
        sums_(std::move(sums)),
        values_(std::move(values)),
        transfer_(std::move(transfer)) {}

  void wait() override {
    transfer_->wait();
    values_ = at::Tensor();
    at::Tensor& total = owner_.sums_[bucket_];
    if (total.defined())
      total.add_(sums_);
    else
      total = std::move(sums_);
  }

 private:
  Zero2& owner_;
  size_t bucket_;
  at::Tensor sums_, values_;
  Group::Pending transfer_;
};

Group::Pending Zero2::send(size_t bucket, std::string_view what) {
  at::Tensor values = buckets().take(bucket);
  at::Tensor sums = at::empty({values.numel() / group().size()}, values.options());
  Group::Pending transfer = wire().reduce_scatter(sums, values, what);
  return std::make_unique<Reduction>(*this, bucket, std::move(sums), std::move(values), std::move(transfer));
}

std::vector<at::Tensor> Zero2::kept_gradients() const {
  std::vector<at::Tensor> result = Zero1::kept_gradients();
  result.insert(result.end(), sums_.begin(), sums_.end());
  return result;
}

}  // namespace blt
