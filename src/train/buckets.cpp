#include "train/buckets.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "blt/train/gradients.h"

namespace blt {

Buckets::Buckets(const std::vector<Trained>& parameters, int64_t bucket_bytes, int64_t ranks, Send send)
    : ranks_(ranks), places_(parameters.size()), send_(std::move(send)) {
  for (size_t i = parameters.size(); i-- > 0;) {
    const at::Tensor& parameter = parameters[i].parameter;
    const int64_t unit = parameters[i].unit;
    const auto options = parameter.options().dtype(gradient_type(parameter)).requires_grad(false);
    const auto fits = [&](const Bucket& bucket) {
      const auto bytes = (bucket.size + parameter.numel()) * static_cast<int64_t>(options.dtype().itemsize());
      return bucket.unit == unit && bucket.options.device() == options.device() &&
             bucket.options.dtype() == options.dtype() && (unit >= 0 || bytes <= bucket_bytes);
    };
    if (buckets_.empty() || !fits(buckets_.back())) buckets_.push_back({.options = options, .unit = unit});
    Bucket& bucket = buckets_.back();
    places_[i] = {buckets_.size() - 1, bucket.pieces.size()};
    bucket.pieces.push_back({.parameter = i, .offset = bucket.size, .numel = parameter.numel()});
    bucket.size += parameter.numel();
  }
  for (Bucket& bucket : buckets_) bucket.size = (bucket.size + ranks - 1) / ranks * ranks;
  reset();
}

Part Buckets::range_of(int64_t rank, const Bucket& bucket) const {
  const int64_t share = bucket.size / ranks_;
  return {rank * share, (rank + 1) * share};
}

Part Buckets::part_of(int64_t rank, size_t parameter) const {
  const Piece& it = piece(parameter);
  const Part range = range_of(rank, buckets_[bucket_of(parameter)]);
  const auto inside = [&](int64_t place) { return std::clamp<int64_t>(place - it.offset, 0, it.numel); };
  return {inside(range.begin), inside(range.end)};
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
  if (!bucket.values.defined()) {
    const Piece& last = bucket.pieces.back();
    bucket.values = at::empty({bucket.size}, bucket.options);
    bucket.values.slice(0, last.offset + last.numel).zero_();
  }
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
