#include "train/zero1.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace blt {

Parts Zero1::parts() const {
  Parts parts = DataParallel::parts();
  for (size_t i = 0; i < parameters().size(); ++i) parts[parameters()[i].name] = own_part(i);
  return parts;
}

at::Tensor Zero1::sums_of(size_t bucket) const {
  const Part range = own_range(buckets().all()[bucket]);
  return buckets().all()[bucket].values.slice(0, range.begin, range.end);
}

at::Tensor Zero1::place_of(size_t parameter, const Part& part) const {
  return parameters()[parameter].parameter.detach().view({-1}).slice(0, part.begin, part.end);
}

Group::Pending Zero1::send(size_t bucket, std::string_view what) {
  return wire().reduce_scatter(sums_of(bucket), buckets().all()[bucket].values, what);
}

std::vector<Gradients::Dense> Zero1::collect(const std::vector<bool>& took_part) {
  std::vector<Gradients::Dense> result;
  for (size_t i = 0; i < parameters().size(); ++i) {
    if (!took_part[i]) continue;
    const size_t b = buckets().bucket_of(i);
    const Part part = own_part(i);
    const int64_t offset = buckets().piece(i).offset - own_range(buckets().all()[b]).begin;
    // A part that is empty may begin outside, and is an empty slice all the same.
    result.push_back({parameters()[i].name, parameters()[i].parameter,
                      sums_of(b).slice(0, offset + part.begin, offset + part.end), place_of(i, part)});
  }
  return result;
}

std::map<std::string, at::Tensor> Zero1::own_dense() const {
  std::map<std::string, at::Tensor> result;
  for (size_t i = 0; i < parameters().size(); ++i) {
    const Part part = own_part(i);
    if (part.begin < part.end) result[parameters()[i].name] = place_of(i, part);
  }
  return result;
}

void Zero1::put_together() {
  const at::NoGradGuard no_grad;
  std::vector<std::pair<const Buckets::Bucket*, at::Tensor>> whole;  // in the parameters' type
  std::vector<Group::Pending> coming;
  for (size_t b = 0; b < buckets().all().size(); ++b) {
    const Buckets::Bucket& bucket = buckets().all()[b];
    if (!is_whole(bucket)) continue;
    const auto values = [&](const Buckets::Piece& piece) { return parameters()[piece.parameter].parameter; };
    const at::Tensor all = at::empty({bucket.size}, values(bucket.pieces[0]).options().requires_grad(false));
    const Part range = own_range(bucket);
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
    whole.emplace_back(&bucket, all);
  }
  for (const Group::Pending& one : coming) one->wait();
  for (const auto& [bucket, all] : whole)
    for (const Buckets::Piece& piece : bucket->pieces) {
      const at::Tensor& parameter = parameters()[piece.parameter].parameter;
      parameter.detach().view({-1}).copy_(all.slice(0, piece.offset, piece.offset + piece.numel));
    }
}

}  // namespace blt
