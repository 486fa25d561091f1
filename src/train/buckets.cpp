#include "train/buckets.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <utility>

namespace blt {

Buckets::Buckets(const std::vector<Trained>& parameters, int64_t bucket_bytes, int64_t multiple, Send send)
    : places_(parameters.size()), send_(std::move(send)) {
  std::vector<int64_t> sizes;
  for (size_t i = parameters.size(); i-- > 0;) {
    const at::Tensor& parameter = parameters[i].parameter;
    const int64_t bytes = parameter.numel() * static_cast<int64_t>(sizeof(float));
    const bool full =
        !buckets_.empty() && sizes.back() * static_cast<int64_t>(sizeof(float)) + bytes > bucket_bytes;
    if (buckets_.empty() || full || parameter.device() != buckets_.back().values.device()) {
      buckets_.push_back({.values = at::zeros({0}, parameter.options().dtype(at::kFloat)), .pieces = {}});
      sizes.push_back(0);
    }
    places_[i] = {buckets_.size() - 1, buckets_.back().pieces.size()};
    buckets_.back().pieces.push_back({.parameter = i, .offset = sizes.back(), .numel = parameter.numel()});
    sizes.back() += parameter.numel();
  }
  for (size_t b = 0; b < buckets_.size(); ++b) {
    at::Tensor& values = buckets_[b].values;
    values = at::zeros({(sizes[b] + multiple - 1) / multiple * multiple}, values.options());
  }
  reset();
}

void Buckets::reset() {
  for (Bucket& bucket : buckets_) {
    for (Piece& piece : bucket.pieces) piece.is_filled = false;
    bucket.num_empty = bucket.pieces.size();
  }
  next_ = 0;
}

void Buckets::fill(size_t parameter, const at::Tensor& gradient) {
  const Place& place = places_[parameter];
  Bucket& bucket = buckets_[place.bucket];
  Piece& piece = bucket.pieces[place.piece];
  TORCH_INTERNAL_ASSERT(!piece.is_filled);
  const at::Tensor target = bucket.values.narrow(0, piece.offset, piece.numel);
  if (gradient.defined())
    target.copy_(gradient.reshape({-1}));
  else
    target.zero_();
  piece.is_filled = true;
  --bucket.num_empty;
  while (next_ < buckets_.size() && buckets_[next_].num_empty == 0) send_(next_++);
}

}  // namespace blt
