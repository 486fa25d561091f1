#include "train/zero1.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace blt {

Part Zero1::range_of(int64_t rank, const Buckets::Bucket& bucket) const {
  const int64_t share = bucket.values.numel() / group().size();
  return {rank * share, (rank + 1) * share};
}

Parts Zero1::parts_of(int64_t rank) const {
  Parts parts = DataParallel::parts_of(rank);
  for (const Buckets::Bucket& bucket : buckets().all()) {
    const Part range = range_of(rank, bucket);
    for (const Buckets::Piece& piece : bucket.pieces) {
      const auto inside = [&](int64_t place) {
        return std::clamp<int64_t>(place - piece.offset, 0, piece.numel);
      };
      parts[parameters()[piece.parameter].name] = {inside(range.begin), inside(range.end)};
    }
  }
  return parts;
}

at::Tensor Zero1::own_range(const Buckets::Bucket& bucket) const {
  const Part range = range_of(group().rank(), bucket);
  return bucket.values.slice(0, range.begin, range.end);
}

Group::Pending Zero1::send(const Buckets::Bucket& bucket, std::string_view what) {
  return wire().reduce_scatter(own_range(bucket), bucket.values, what);
}

std::vector<Gradients::Dense> Zero1::collect(const std::vector<bool>& took_part) {
  std::vector<Gradients::Dense> result;
  const Parts own = parts();
  for (size_t i = 0; i < parameters().size(); ++i) {
    const Trained& item = parameters()[i];
    const Part part = own.at(item.name);
    if (!took_part[i] || part.begin == part.end) continue;
    const int64_t offset = buckets().piece(i).offset;
    const at::Tensor& values = buckets().all()[buckets().bucket_of(i)].values;
    result.push_back({item.name, item.parameter, values.slice(0, offset + part.begin, offset + part.end)});
  }
  return result;
}

void Zero1::put_together() {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> whole;  // of each bucket, in the parameters' type
  std::vector<Group::Pending> coming;
  for (size_t b = 0; b < buckets().all().size(); ++b) {
    const Buckets::Bucket& bucket = buckets().all()[b];
    const auto values = [&](const Buckets::Piece& piece) { return parameters()[piece.parameter].parameter; };
    const at::Tensor all =
        at::empty(bucket.values.sizes(), values(bucket.pieces[0]).options().requires_grad(false));
    const Part range = range_of(group().rank(), bucket);
    const at::Tensor own = at::zeros({range.end - range.begin}, all.options());
    for (const Buckets::Piece& piece : bucket.pieces) {
      const int64_t begin = std::max(range.begin, piece.offset);
      const int64_t end = std::min(range.end, piece.offset + piece.numel);
      if (begin < end)
        own.slice(0, begin - range.begin, end - range.begin)
            .copy_(values(piece).view({-1}).slice(0, begin - piece.offset, end - piece.offset));
    }
    coming.push_back(
        group().all_gather(all, own, fmt::format("parameters, {} of {}", b + 1, buckets().all().size())));
    whole.push_back(all);
  }
  for (const Group::Pending& one : coming) one->wait();
  for (size_t b = 0; b < whole.size(); ++b)
    for (const Buckets::Piece& piece : buckets().all()[b].pieces) {
      const at::Tensor& parameter = parameters()[piece.parameter].parameter;
      parameter.detach().view({-1}).copy_(whole[b].slice(0, piece.offset, piece.offset + piece.numel));
    }
}

}  // namespace blt
